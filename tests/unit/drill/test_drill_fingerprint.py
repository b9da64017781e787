"""What is compared: the SQL that counts and hashes a table, and what two answers differ in."""

from __future__ import annotations

from drill_fingerprint import Content, Difference, Table, differences, lost_rows, query, tables


def test_columns_are_gathered_by_table_in_their_order() -> None:
    rows = [
        ("phoenix", "a", "id", "pg_catalog.uuid_send"),
        ("phoenix", "a", "v", "public.vector_send"),
        ("phoenix", "b", None, None),
    ]
    assert tables(rows) == [
        Table("phoenix", "a", (("id", "pg_catalog.uuid_send"), ("v", "public.vector_send"))),
        Table("phoenix", "b", ()),
    ]


def test_a_table_is_hashed_by_the_binary_form_of_each_column() -> None:
    text = query(Table("phoenix", "a", (("id", "pg_catalog.uuid_send"), ("v", "public.vector_send"))))
    assert 'ARRAY[pg_catalog.uuid_send(r."id"), public.vector_send(r."v")]::pg_catalog.bytea[]' in text
    assert text.endswith('FROM "phoenix"."a" AS r')


def test_a_type_without_a_binary_form_is_hashed_as_text() -> None:
    assert """convert_to(r."acl"::pg_catalog.text, 'UTF8')""" in query(Table("s", "t", (("acl", None),)))


def test_a_table_without_columns_still_counts_its_rows() -> None:
    assert "ARRAY[]::pg_catalog.bytea[]" in query(Table("s", "t", ()))


def test_names_cannot_leave_their_quotes() -> None:
    text = query(Table("s", 'a"; DROP TABLE x; --', (('b"c', "pg_catalog.int4send"),)))
    assert '"a""; DROP TABLE x; --"' in text
    assert 'r."b""c"' in text


def test_equal_contents_differ_in_nothing() -> None:
    held = {"s.a": Content(2, "17"), "s.b": Content(0, "0")}
    assert differences(held, dict(held)) == []


def test_each_difference_is_said_in_words_and_lost_rows_are_added_up() -> None:
    witnessed = {"s.a": Content(5, "1"), "s.b": Content(3, "2"), "s.c": Content(4, "3"), "s.same": Content(1, "9")}
    restored = {"s.a": Content(3, "7"), "s.b": Content(3, "8"), "s.d": Content(1, "4"), "s.same": Content(1, "9")}
    found = differences(witnessed, restored)
    assert [str(one) for one in found] == [
        "s.a has 3 rows instead of 5",
        "s.b has other contents in its 3 rows",
        "s.c is missing",
        "s.d should not exist",
    ]
    assert lost_rows(found) == 2 + 4


def test_rows_too_many_make_up_for_none_that_are_lost() -> None:
    found = [Difference("s.a", Content(1, "1"), Content(9, "2")), Difference("s.b", Content(3, "1"), Content(1, "2"))]
    assert lost_rows(found) == 2
