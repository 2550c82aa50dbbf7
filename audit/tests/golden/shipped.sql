WITH part_0_0 AS (
  SELECT n, id, "time" AS at, "time" AS c0, commit.repo AS c1, commit.sha AS c2
  FROM "commit" AS "commit"
),
part_0_1 AS (
  SELECT n, id, "time" AS at, "time" AS c0, deploy.repo AS c1, deploy.sha AS c2, deploy.service AS c3
  FROM "deployed" AS "deploy"
),
part_0_100 AS (
  SELECT n, id, "time" AS at, commit.repo AS c0, commit.sha AS c1, parents AS c2
  FROM "commit" AS "commit"
),
pairs_0_0 AS (
  -- ancestors by sets of our own; of each commit and line the first deployment that contains it
  WITH RECURSIVE edges AS (
    SELECT [c0] AS graph, c1 AS sha, UNNEST(c2) AS parent FROM part_0_100
  ), shipped AS (
    SELECT n, at, id, [c3] AS line, c2 AS sha FROM part_0_1
    UNION SELECT s.n, s.at, s.id, s.line, e.parent FROM shipped AS s JOIN edges AS e USING (graph, sha)
  )
  SELECT l, FIRST_VALUE(r ORDER BY at, id) AS r FROM shipped WHERE sha IN (COALESCE(p0.c2)) GROUP BY l, line
),
relation_0 AS (
  SELECT p0.* AS "commit", p1.* AS "deploy"
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
    deploy.time - commit.time AS "v_median",
    (deploy.time - commit.time) IS NOT NULL AS "if_median"
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
