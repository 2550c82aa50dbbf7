WITH "touches_order" AS (
  SELECT order AS key,
    id,
    time AS at,
    amount AS "v_amount",
    (amount) IS NOT NULL AS "if_amount",
    true AS "v_seen",
    (true) IS NOT NULL AS "if_seen"
  FROM "order.created"
),
"entity_order" AS (
  SELECT key, MIN(at) AS first_at, MAX(at) AS last_at,
    COUNT(*) FILTER (WHERE "if_amount") AS n0,
    FIRST_VALUE("v_amount" ORDER BY at DESC, id DESC NULLS LAST, "v_amount" DESC) FILTER (WHERE "if_amount") AS x0,
    COUNT(*) FILTER (WHERE "if_seen") AS n1
  FROM "touches_order" WHERE at < 1772445600000000 /* 2026-03-02T10:00:00Z */
  GROUP BY key ORDER BY key
),
rows AS (
  SELECT 'order' AS alias,
    event,
    id,
    "first_time" AS at,
    TRUE AS passed,
    lost,
    amount AS "v_value",
    (amount) IS NOT NULL AS "if_value"
  FROM "entity_order" AS "order"
),
admitted AS (
  SELECT * FROM rows WHERE at < 1772445600000000 /* 2026-03-02T10:00:00Z */
),
matched AS (
  SELECT * FROM admitted WHERE passed AND lost IS NULL
),
asked AS (
  SELECT * FROM matched
),
counted AS (
  SELECT * FROM asked
)
SELECT COUNT(*) AS rows, MIN(at) AS first_at, MAX(at) AS last_at,
  COUNT(*) FILTER (WHERE "if_value") AS n0,
  SUM(CAST("v_value" AS DECIMAL(76, 2))) FILTER (WHERE "if_value") AS x0
FROM counted
