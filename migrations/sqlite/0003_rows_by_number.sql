-- Nothing to do: the key of `rows` has the rows of an upload together and in their order.
SELECT 1;
