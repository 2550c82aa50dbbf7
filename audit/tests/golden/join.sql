WITH part_0_0 AS (
  SELECT n, id, "time" AS at, "time" AS c0, order.order AS c1
  FROM "order.created" AS "order"
),
part_0_1 AS (
  SELECT n, id, "time" AS at, "time" AS c0, ship.order AS c1
  FROM "order.shipped" AS "ship"
),
left_0_0 AS (
  SELECT n, p0.at, p0.c1 AS k0
  FROM part_0_0 AS p0
),
right_0_0 AS (
  SELECT n, at, id, c1 AS k0 FROM part_0_1
),
pairs_0_0 AS (
  SELECT l, r FROM (
  SELECT l.n AS l, r.n AS r,
    CAST(ROW_NUMBER() OVER (PARTITION BY l.n ORDER BY r.at, r.id NULLS FIRST, r.tie) AS BIGINT) AS place
  FROM left_0_0 AS l JOIN right_0_0 AS r
    ON l.k0 = r.k0
    AND r.at >= l.at
    AND r.at <= l.at + 172800000000
  ) WHERE place = 1
),
relation_0 AS (
  SELECT p0.* AS "order", p1.* AS "ship"
  FROM part_0_0 AS p0
  JOIN pairs_0_0 AS s0 ON s0.l = n JOIN part_0_1 AS p1 ON p1.n = s0.r
),
rows AS (
  SELECT 'joined' AS alias,
    event,
    id,
    "time" AS at,
    TRUE AS passed,
    lost,
    ship.time - order.time AS "v_median",
    (ship.time - order.time) IS NOT NULL AS "if_median"
  FROM relation_0
),
admitted AS (
  SELECT * FROM rows WHERE at < 1772445600000000 /* 2026-03-02T10:00:00Z */
),
matched AS (
  SELECT * FROM admitted WHERE passed AND lost IS NULL AND at >= 1771840800000000 /* 2026-02-23T10:00:00Z */ -- retain
),
asked AS (
  SELECT * FROM matched
),
counted AS (
  SELECT * FROM asked WHERE at >= 1772409600000000 /* 2026-03-02T00:00:00Z */
    AND at < 1772496000000000 /* 2026-03-03T00:00:00Z */
)
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_median") AS n0
FROM counted;
SELECT v, i, n FROM (
  SELECT "v_median" AS v, CAST(ROW_NUMBER() OVER (ORDER BY "v_median") AS BIGINT) - 1 AS i, COUNT(*) OVER () AS n
  FROM counted WHERE "if_median"
) WHERE i BETWEEN 500000000 * (n - 1) / 1000000000 AND 500000000 * (n - 1) / 1000000000 + 1
