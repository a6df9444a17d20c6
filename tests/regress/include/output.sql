-- How the tests print: unaligned, rows alone, NULLs to be seen, errors with detail and hint (terse where a test says so
-- after this) and without context. Included with \i, quietly, behind \set ECHO none.
\pset format unaligned
\pset tuples_only
\pset null '<NULL>'
\set VERBOSITY default
\set SHOW_CONTEXT never
