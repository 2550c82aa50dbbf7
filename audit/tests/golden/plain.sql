WITH rows AS (
  SELECT 'order' AS alias,
    event,
    id,
    "time" AS at,
    order.paid AS passed,
    lost,
    COALESCE(region, 'nowhere') AS "d_region",
    order.amount AS "v_total",
    (order.amount) IS NOT NULL AS "if_total",
    sum_of(order.items, price * n) AS "v_goods",
    (sum_of(order.items, price * n)) IS NOT NULL AS "if_goods",
    order.amount AS "v_p90",
    (order.amount) IS NOT NULL AS "if_p90",
    order.amount AS "v_sizes",
    (order.amount) IS NOT NULL AS "if_sizes",
    order.amount AS "v_last",
    (order.amount > 1) AND (order.amount) IS NOT NULL AS "if_last"
  FROM "order.created" AS "order"
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
  SELECT * FROM asked WHERE at >= 1772442000000000 /* 2026-03-02T09:00:00Z */
    AND at < 1772445600000000 /* 2026-03-02T10:00:00Z */
)
SELECT "d_region",
  COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_total") AS n0,
  SUM(CAST("v_total" AS DECIMAL(76, 2))) FILTER (WHERE "if_total") AS x0,
  COUNT(*) FILTER (WHERE "if_goods") AS n1,
  SUM(CAST("v_goods" AS DECIMAL(76, 2))) FILTER (WHERE "if_goods") AS x1,
  COUNT(*) FILTER (WHERE "if_p90") AS n2,
  COUNT(*) FILTER (WHERE "if_sizes") AS n3,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) <= CAST(10.0 AS DOUBLE)) AS b3_0,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) > CAST(10.0 AS DOUBLE) AND CAST("v_sizes" AS DOUBLE) <= CAST(100.0 AS DOUBLE)) AS b3_1,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) > CAST(100.0 AS DOUBLE)) AS b3_2,
  COUNT(*) FILTER (WHERE "if_last") AS n4,
  FIRST_VALUE("v_last" ORDER BY at DESC, id DESC NULLS LAST, "v_last" DESC) FILTER (WHERE "if_last") AS x4
FROM counted
GROUP BY "d_region";
SELECT "d_region", v, i, n FROM (
  SELECT "d_region", "v_p90" AS v, CAST(ROW_NUMBER() OVER (PARTITION BY "d_region" ORDER BY "v_p90") AS BIGINT) - 1 AS i, COUNT(*) OVER (PARTITION BY "d_region" ) AS n
  FROM counted WHERE "if_p90"
) WHERE i BETWEEN 900000000 * (n - 1) / 1000000000 AND 900000000 * (n - 1) / 1000000000 + 1;
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_total") AS n0,
  SUM(CAST("v_total" AS DECIMAL(76, 2))) FILTER (WHERE "if_total") AS x0,
  COUNT(*) FILTER (WHERE "if_goods") AS n1,
  SUM(CAST("v_goods" AS DECIMAL(76, 2))) FILTER (WHERE "if_goods") AS x1,
  COUNT(*) FILTER (WHERE "if_p90") AS n2,
  COUNT(*) FILTER (WHERE "if_sizes") AS n3,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) <= CAST(10.0 AS DOUBLE)) AS b3_0,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) > CAST(10.0 AS DOUBLE) AND CAST("v_sizes" AS DOUBLE) <= CAST(100.0 AS DOUBLE)) AS b3_1,
  COUNT(*) FILTER (WHERE "if_sizes" AND CAST("v_sizes" AS DOUBLE) > CAST(100.0 AS DOUBLE)) AS b3_2,
  COUNT(*) FILTER (WHERE "if_last") AS n4,
  FIRST_VALUE("v_last" ORDER BY at DESC, id DESC NULLS LAST, "v_last" DESC) FILTER (WHERE "if_last") AS x4
FROM counted;
SELECT v, i, n FROM (
  SELECT "v_p90" AS v, CAST(ROW_NUMBER() OVER (ORDER BY "v_p90") AS BIGINT) - 1 AS i, COUNT(*) OVER () AS n
  FROM counted WHERE "if_p90"
) WHERE i BETWEEN 900000000 * (n - 1) / 1000000000 AND 900000000 * (n - 1) / 1000000000 + 1
