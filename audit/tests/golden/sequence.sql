WITH part_0_0 AS (
  SELECT n, id, "time" AS at, "order" AS c0, "paid" AS c1, "region" AS c2
  FROM "order.created" AS "order"
),
relation_0 AS (
  SELECT p0.* AS "order"
  FROM part_0_0 AS p0
),
sequence_0 AS (
  SELECT *, order.order AS key, order.region AS state, TRUE AS starts, order.paid AS ends,
    LEAD(time) OVER (PARTITION BY order.order ORDER BY time, id) AS until
  FROM relation_0
),
rows AS (
  SELECT 'interval' AS alias,
    event,
    id,
    "time" AS at,
    interval."@kind" = 0 AS passed,
    lost,
    interval.start AS "from_open",
    interval.end AS "until_open",
    TRUE AS "if_open",
    interval.start AS "from_spent",
    interval.end AS "until_spent",
    (CAST(interval.state AS VARCHAR) = 'eu') AS "if_spent",
    FALSE AS "if_done",
    interval.state AS "v_regions",
    (interval.state) IS NOT NULL AS "if_regions"
  FROM sequence_0 AS "interval"
  UNION ALL
  SELECT 'item' AS alias,
    event,
    id,
    "time" AS at,
    item."@kind" = 1 AS passed,
    lost,
    NULL AS "from_open",
    NULL AS "until_open",
    FALSE AS "if_open",
    NULL AS "from_spent",
    NULL AS "until_spent",
    FALSE AS "if_spent",
    TRUE AS "if_done",
    NULL AS "v_regions",
    FALSE AS "if_regions"
  FROM sequence_0 AS "item"
),
admitted AS (
  SELECT * FROM rows WHERE at < 1772445600000000 /* 2026-03-02T10:00:00Z */
),
matched AS (
  SELECT * FROM admitted WHERE passed AND lost IS NULL AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */ -- retain
),
lasting AS (
  SELECT *, CASE WHEN at < 1772445600000000 /* 2026-03-02T10:00:00Z */ AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */
      OR "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND ("until_open" IS NULL OR "until_open" >= 1771545600000000)
      OR "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND ("until_spent" IS NULL OR "until_spent" >= 1771545600000000) THEN at END AS ranked, LEAST(CASE WHEN at < 1772445600000000 /* 2026-03-02T10:00:00Z */ AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */ THEN at END,
    CASE WHEN "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND ("until_open" IS NULL OR "until_open" >= 1771545600000000) AND "from_open" < 1772445600000000 /* 2026-03-02T10:00:00Z */ THEN
      CASE WHEN "from_open" < 1771545600000000 THEN -9223372036854775807 ELSE "from_open" - (("from_open" % 3600000000) + 3600000000) % 3600000000 END END,
    CASE WHEN "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND ("until_spent" IS NULL OR "until_spent" >= 1771545600000000) AND "from_spent" < 1772445600000000 /* 2026-03-02T10:00:00Z */ THEN
      CASE WHEN "from_spent" < 1771545600000000 THEN -9223372036854775807 ELSE "from_spent" - (("from_spent" % 3600000000) + 3600000000) % 3600000000 END END) AS first
  FROM rows
  WHERE passed AND lost IS NULL AND at IS NOT NULL
),
asked AS (
  SELECT * FROM matched
),
asked_lasting AS (
  SELECT * FROM lasting
),
counted AS (
  SELECT * FROM asked WHERE at >= 1772409600000000 /* 2026-03-02T00:00:00Z */
    AND at < 1772496000000000 /* 2026-03-03T00:00:00Z */
),
admitted_36000000000 AS (
  SELECT * FROM rows WHERE at < 1772409600000000 /* 2026-03-02T00:00:00Z */
),
matched_36000000000 AS (
  SELECT * FROM admitted_36000000000 WHERE passed AND lost IS NULL AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */ -- retain
),
asked_36000000000 AS (
  SELECT * FROM matched_36000000000
),
counted_36000000000 AS (
  SELECT * FROM asked_36000000000 WHERE at >= 1772323200000000 /* 2026-03-01T00:00:00Z */
    AND at < 1772409600000000 /* 2026-03-02T00:00:00Z */
),
admitted_122400000000 AS (
  SELECT * FROM rows WHERE at < 1772323200000000 /* 2026-03-01T00:00:00Z */
),
matched_122400000000 AS (
  SELECT * FROM admitted_122400000000 WHERE passed AND lost IS NULL AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */ -- retain
),
asked_122400000000 AS (
  SELECT * FROM matched_122400000000
),
counted_122400000000 AS (
  SELECT * FROM asked_122400000000 WHERE at >= 1772236800000000 /* 2026-02-28T00:00:00Z */
    AND at < 1772323200000000 /* 2026-03-01T00:00:00Z */
),
admitted_208800000000 AS (
  SELECT * FROM rows WHERE at < 1772236800000000 /* 2026-02-28T00:00:00Z */
),
matched_208800000000 AS (
  SELECT * FROM admitted_208800000000 WHERE passed AND lost IS NULL AND at >= 1771545600000000 /* 2026-02-20T00:00:00Z */ -- retain
),
asked_208800000000 AS (
  SELECT * FROM matched_208800000000
),
counted_208800000000 AS (
  SELECT * FROM asked_208800000000 WHERE at >= 1772150400000000 /* 2026-02-27T00:00:00Z */
    AND at < 1772236800000000 /* 2026-02-28T00:00:00Z */
)
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_done") AS n2,
  COUNT(*) FILTER (WHERE "if_regions") AS n3
FROM counted;
SELECT v, n FROM (
  SELECT v, n, ROW_NUMBER() OVER (ORDER BY n DESC, v) AS place FROM (
    SELECT "v_regions" AS v, COUNT(*) AS n FROM counted WHERE "if_regions" GROUP BY "v_regions"
  )
) WHERE place <= 2 ORDER BY place;
SELECT COUNT(*) FILTER (WHERE "until_open" IS NULL OR "until_open" >= 1772445600000000 /* 2026-03-02T10:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_open", 1772445600000000 /* 2026-03-02T10:00:00Z */), 1772445600000000 /* 2026-03-02T10:00:00Z */) - GREATEST("from_open", 1772409600000000 /* 2026-03-02T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND "from_open" < 1772445600000000 /* 2026-03-02T10:00:00Z */;
SELECT COUNT(*) FILTER (WHERE "until_spent" IS NULL OR "until_spent" >= 1772445600000000 /* 2026-03-02T10:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_spent", 1772445600000000 /* 2026-03-02T10:00:00Z */), 1772445600000000 /* 2026-03-02T10:00:00Z */) - GREATEST("from_spent", 1772409600000000 /* 2026-03-02T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND "from_spent" < 1772445600000000 /* 2026-03-02T10:00:00Z */;
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_done") AS n2,
  COUNT(*) FILTER (WHERE "if_regions") AS n3
FROM counted_36000000000;
SELECT v, n FROM (
  SELECT v, n, ROW_NUMBER() OVER (ORDER BY n DESC, v) AS place FROM (
    SELECT "v_regions" AS v, COUNT(*) AS n FROM counted_36000000000 WHERE "if_regions" GROUP BY "v_regions"
  )
) WHERE place <= 2 ORDER BY place;
SELECT COUNT(*) FILTER (WHERE "until_open" IS NULL OR "until_open" >= 1772409600000000 /* 2026-03-02T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_open", 1772409600000000 /* 2026-03-02T00:00:00Z */), 1772409600000000 /* 2026-03-02T00:00:00Z */) - GREATEST("from_open", 1772323200000000 /* 2026-03-01T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND "from_open" < 1772409600000000 /* 2026-03-02T00:00:00Z */;
SELECT COUNT(*) FILTER (WHERE "until_spent" IS NULL OR "until_spent" >= 1772409600000000 /* 2026-03-02T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_spent", 1772409600000000 /* 2026-03-02T00:00:00Z */), 1772409600000000 /* 2026-03-02T00:00:00Z */) - GREATEST("from_spent", 1772323200000000 /* 2026-03-01T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND "from_spent" < 1772409600000000 /* 2026-03-02T00:00:00Z */;
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_done") AS n2,
  COUNT(*) FILTER (WHERE "if_regions") AS n3
FROM counted_122400000000;
SELECT v, n FROM (
  SELECT v, n, ROW_NUMBER() OVER (ORDER BY n DESC, v) AS place FROM (
    SELECT "v_regions" AS v, COUNT(*) AS n FROM counted_122400000000 WHERE "if_regions" GROUP BY "v_regions"
  )
) WHERE place <= 2 ORDER BY place;
SELECT COUNT(*) FILTER (WHERE "until_open" IS NULL OR "until_open" >= 1772323200000000 /* 2026-03-01T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_open", 1772323200000000 /* 2026-03-01T00:00:00Z */), 1772323200000000 /* 2026-03-01T00:00:00Z */) - GREATEST("from_open", 1772236800000000 /* 2026-02-28T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND "from_open" < 1772323200000000 /* 2026-03-01T00:00:00Z */;
SELECT COUNT(*) FILTER (WHERE "until_spent" IS NULL OR "until_spent" >= 1772323200000000 /* 2026-03-01T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_spent", 1772323200000000 /* 2026-03-01T00:00:00Z */), 1772323200000000 /* 2026-03-01T00:00:00Z */) - GREATEST("from_spent", 1772236800000000 /* 2026-02-28T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND "from_spent" < 1772323200000000 /* 2026-03-01T00:00:00Z */;
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_done") AS n2,
  COUNT(*) FILTER (WHERE "if_regions") AS n3
FROM counted_208800000000;
SELECT v, n FROM (
  SELECT v, n, ROW_NUMBER() OVER (ORDER BY n DESC, v) AS place FROM (
    SELECT "v_regions" AS v, COUNT(*) AS n FROM counted_208800000000 WHERE "if_regions" GROUP BY "v_regions"
  )
) WHERE place <= 2 ORDER BY place;
SELECT COUNT(*) FILTER (WHERE "until_open" IS NULL OR "until_open" >= 1772236800000000 /* 2026-02-28T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_open", 1772236800000000 /* 2026-02-28T00:00:00Z */), 1772236800000000 /* 2026-02-28T00:00:00Z */) - GREATEST("from_open", 1772150400000000 /* 2026-02-27T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_open" AND "from_open" IS NOT NULL AND ("until_open" IS NULL OR "until_open" > "from_open") AND "from_open" < 1772236800000000 /* 2026-02-28T00:00:00Z */;
SELECT COUNT(*) FILTER (WHERE "until_spent" IS NULL OR "until_spent" >= 1772236800000000 /* 2026-02-28T00:00:00Z */) AS n,
  SUM(GREATEST(LEAST(COALESCE("until_spent", 1772236800000000 /* 2026-02-28T00:00:00Z */), 1772236800000000 /* 2026-02-28T00:00:00Z */) - GREATEST("from_spent", 1772150400000000 /* 2026-02-27T00:00:00Z */), 0)) AS spent
FROM asked_lasting
WHERE "if_spent" AND "from_spent" IS NOT NULL AND ("until_spent" IS NULL OR "until_spent" > "from_spent") AND "from_spent" < 1772236800000000 /* 2026-02-28T00:00:00Z */
