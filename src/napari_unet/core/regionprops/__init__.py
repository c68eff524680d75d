"""Objects measured: what adds up part by part, and the table that comes of it."""
