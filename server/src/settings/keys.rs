//! All settings in one table: the reference page and the JSON Schema are made from it.
//!
//! *In*: nothing. *Out*: [`KEYS`], [`json_schema`], [`reference`]. *Never*: a setting that is read but
//! not listed here (a test holds the two together).

use serde_json::{Map, Value, json};

/// One setting.
#[derive(Debug)]
pub struct Key {
    /// Dotted path; `[]` after a list.
    pub path: &'static str,
    /// What may stand there.
    pub shape: Shape,
    /// What holds without it; empty: nothing does.
    pub default: &'static str,
    /// Must be written.
    pub required: bool,
    /// What it does.
    pub doc: &'static str,
}

/// What may stand at a setting.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// Any text.
    Text,
    /// One of these words.
    Words(&'static [&'static str]),
    /// Text or a list of texts.
    Texts,
    /// A whole number, `_` between digits allowed.
    Whole,
    /// `1MiB`, `10MB`, `4096`.
    Bytes,
    /// `500ms`, `30s`, `5m`, `24h`, `7d`.
    Duration,
    /// A mapping without settings of its own (`http: {}`).
    Empty,
    /// `{ env: NAME }` or `{ file: PATH }`.
    Secret,
    /// Free names; values are text or `{ env: NAME }` or `{ file: PATH }`.
    Properties,
}

const fn key(path: &'static str, shape: Shape, default: &'static str, doc: &'static str) -> Key {
    Key { path, shape, default, required: false, doc }
}

const fn required(path: &'static str, shape: Shape, doc: &'static str) -> Key {
    Key { path, shape, default: "", required: true, doc }
}

/// Every setting, in the order of the reference page.
pub const KEYS: &[Key] = &[
    required("apiVersion", Shape::Words(&["streamgauge/v1"]), "Version of this file's shape."),
    required("kind", Shape::Words(&["Settings"]), "Tells settings from contracts."),
    key(
        "contracts",
        Shape::Texts,
        "[contracts/]",
        "Folders (all `.yaml` and `.yml` below), files, and `pack:NAME` for contracts that come with the program. All are one set: a metric of yours may read an event of a pack.",
    ),
    key(
        "data",
        Shape::Text,
        "data/",
        "Folder of the embedded log and the dead letters. One process at a time may use it.",
    ),
    key("workers", Shape::Whole, "1", "Dataflow threads, 1 to 256. Answers do not depend on it."),
    key(
        "server.listen",
        Shape::Text,
        "127.0.0.1:8080",
        "Address and port of the HTTP server. Port 0 takes a free one and prints it.",
    ),
    required(
        "sources[].name",
        Shape::Text,
        "Name of the source in answers, counters and tokens: 1 to 64 letters, digits, `-`, `_`, `.`.",
    ),
    key(
        "sources[].format",
        Shape::Words(&["json", "cloudevents", "debezium", "avro", "protobuf"]),
        "json",
        "How bytes become events. `debezium`: change events of Debezium (see the how-to on change streams); the contract of a table is the event `cdc.<topic>`. `avro`, `protobuf`: records in the wire format of Confluent's Schema Registry.",
    ),
    key(
        "sources[].registry.url",
        Shape::Text,
        "",
        "Address of a schema registry: Confluent's, or one that speaks its API (Karapace, Apicurio's `/apis/ccompat/v7`). While it does not answer, the source waits. For Kafka sources; `json` and `debezium` records may have its header, too.",
    ),
    key("sources[].registry.user", Shape::Text, "", "User, where the registry wants one."),
    key(
        "sources[].registry.password",
        Shape::Secret,
        "",
        "Its password or API secret, never in the file itself.",
    ),
    key(
        "sources[].type",
        Shape::Text,
        "",
        "Type of the records that do not say theirs; with `debezium`, of all.",
    ),
    key(
        "sources[].debezium.decimals",
        Shape::Words(&["auto", "precise", "string", "double"]),
        "auto",
        "The connector's `decimal.handling.mode`, for records without a schema. `auto`: text with a point or a minus is a number, other text is base64; what could be both is refused.",
    ),
    key(
        "sources[].debezium.times",
        Shape::Words(&["auto", "millis", "micros", "nanos"]),
        "auto",
        "Unit of integer timestamps, for records without a schema. `auto`: microseconds of PostgreSQL, milliseconds of MySQL and MariaDB; elsewhere they are refused.",
    ),
    key(
        "sources[].envelope.id",
        Shape::Text,
        "event_id",
        "Dotted path of the event's id. For `format: json`.",
    ),
    key(
        "sources[].envelope.type",
        Shape::Text,
        "event_type",
        "Dotted path of the event's type, which picks the Event contract.",
    ),
    key("sources[].envelope.time", Shape::Text, "timestamp", "Dotted path of the event's time."),
    key(
        "sources[].envelope.tenant",
        Shape::Text,
        "",
        "Dotted path of the tenant. Ids then count per tenant: the same id of two tenants is two events.",
    ),
    key(
        "sources[].envelope.op",
        Shape::Text,
        "",
        "Dotted path of the operation (`c`, `r`, `u`, `d`, `t`) of records that are versions of a row (`changelog: true`) and no change events. Without it every record is the newest version.",
    ),
    key(
        "sources[].accept_loss",
        Shape::Texts,
        "",
        "Records that are gone and may be, each as the error `offset_gap` proposes it: `TOPIC[PARTITION] FROM..TO`. It holds for exactly these offsets.",
    ),
    key(
        "sources[].http",
        Shape::Empty,
        "",
        "Events pushed to `POST /v1/events`, durable in the embedded log before they are acknowledged. Without any `http` source there is one named `push`.",
    ),
    key(
        "sources[].hook.kind",
        Shape::Words(&[
            "github",
            "gitlab",
            "jenkins",
            "argocd",
            "pagerduty",
            "incidentio",
            "opsgenie",
            "sentry",
            "jira",
            "linear",
            "cdevents",
            "slack",
            "standard",
            "token",
        ]),
        "",
        "Webhooks of this tool to `POST /v1/hooks/NAME`, kept as delivered and turned into canonical events by its adapter (`slack`, `standard` and `token`: by `adapter`, else read by `format` and `envelope`).",
    ),
    key(
        "sources[].hook.adapter",
        Shape::Text,
        "the kind's own",
        "YAML file of an adapter of your own: how its deliveries become canonical events.",
    ),
    key(
        "sources[].hook.secret_env",
        Shape::Texts,
        "",
        "Environment variable with the hook's secret; a list of two while the secret is being changed.",
    ),
    key("sources[].hook.secret_file", Shape::Texts, "", "File with the hook's secret, or a list of them."),
    key(
        "sources[].hook.tolerance",
        Shape::Duration,
        "5m",
        "How far the signed time of a delivery may be from now, where the scheme signs one (Slack, Standard Webhooks, incident.io, GitLab's signing token, Linear).",
    ),
    key(
        "sources[].hook.verify",
        Shape::Words(&["signature", "none"]),
        "signature",
        "`none` takes deliveries without a secret; only where the server listens on a loopback address.",
    ),
    key(
        "sources[].file.path",
        Shape::Text,
        "",
        "An NDJSON, CSV or Parquet file, read from its beginning at each start.",
    ),
    key("sources[].kafka.brokers", Shape::Texts, "", "`host:port`, several as a list or with commas."),
    key("sources[].kafka.topics", Shape::Texts, "", "Topic names; `*` stands for any characters."),
    key(
        "sources[].kafka.group",
        Shape::Text,
        "streamgauge",
        "Progress is committed to this group, for tools that show lag. Nothing is read back from it: state is rebuilt from what is retained.",
    ),
    key(
        "sources[].kafka.start",
        Shape::Words(&["earliest", "latest"]),
        "earliest",
        "Where reading begins. With `latest` a restart forgets what was counted before.",
    ),
    key(
        "sources[].kafka.properties",
        Shape::Properties,
        "{}",
        "Further librdkafka properties. Secrets only as `{ env: NAME }` or `{ file: PATH }`.",
    ),
    key(
        "lake.catalog",
        Shape::Words(&["sqlite", "postgres", "rest", "none"]),
        "sqlite",
        "Who knows the newest state of each Iceberg table. `none`: there is no lake.",
    ),
    key(
        "lake.uri",
        Shape::Text,
        "",
        "Address of the catalog: `postgres://user@host/database`, `https://catalog.example.com`.",
    ),
    key(
        "lake.password",
        Shape::Secret,
        "",
        "Password of the catalog's database: `{ env: NAME }` or `{ file: PATH }`.",
    ),
    key(
        "lake.properties",
        Shape::Properties,
        "{}",
        "Properties of a REST catalog: `warehouse`, `scope`, `token`, `credential`. Secrets only as `{ env: NAME }` or `{ file: PATH }`.",
    ),
    key(
        "lake.warehouse",
        Shape::Text,
        "data/lake",
        "Where files are: a folder, or `s3://bucket/prefix` (credentials, `AWS_REGION` and `AWS_ENDPOINT_URL` from the environment).",
    ),
    key("lake.namespace", Shape::Text, "streamgauge", "The Iceberg namespace of all tables."),
    key("lake.commit_every", Shape::Duration, "10s", "Rows wait at most so long for their commit."),
    key(
        "lake.buckets",
        Shape::Whole,
        "4",
        "Rows of a day are kept apart by the hash of their id into so many files per commit.",
    ),
    key(
        "lake.memory",
        Shape::Bytes,
        "256MiB",
        "With half of it waiting a commit is made at once; with all of it the sources pause and pushes are answered 503.",
    ),
    key(
        "auth.mode",
        Shape::Words(&["open", "keys", "jwt"]),
        "open",
        "Only `open` runs yet, and only on a loopback address; anything else is refused at the start.",
    ),
    key("limits.body", Shape::Bytes, "1MiB", "Greatest request body. A longer one is answered 413."),
    key(
        "limits.keys_per_metric",
        Shape::Whole,
        "1_000_000",
        "Greatest number of dimension combinations a metric keeps; further ones are lost with reason `key_limit`.",
    ),
    key(
        "limits.memory",
        Shape::Bytes,
        "3/4 of the machine",
        "Resident memory above which sources wait and pushes are answered 503 until it falls. The machine is the container, where its cgroup (v1 or v2) allows less.",
    ),
    key(
        "limits.backfill",
        Shape::Whole,
        "100_000",
        "Rows per second that a reload or a backfill reads beside the running contracts, on top of what arrives meanwhile; `0`: no bound.",
    ),
    key(
        "limits.log",
        Shape::Bytes,
        "8GiB",
        "Bytes of the embedded log of one source. Beyond it, and after 30 days, the oldest events go, but never those that a kept checkpoint or the lake needs: then pushes are answered 503 (`log_full`).",
    ),
    key(
        "limits.dead_letters",
        Shape::Bytes,
        "1GiB",
        "Bytes of refused events that are kept to be corrected; beyond it the oldest go and are counted (`streamgauge_deadletters_dropped`). The lake keeps all.",
    ),
    key(
        "limits.dead_letters_age",
        Shape::Duration,
        "30d",
        "How long refused events are kept to be corrected.",
    ),
    key(
        "limits.dead_letters_count",
        Shape::Whole,
        "100_000",
        "How many refused events are kept to be corrected.",
    ),
    key(
        "audit.every",
        Shape::Duration,
        "20s",
        "How often numbers are picked at random and recomputed from their events.",
    ),
    key("audit.numbers", Shape::Whole, "3", "How many each time; `0` turns that off."),
    key(
        "audit.memory",
        Shape::Bytes,
        "64MiB",
        "Admitted events in memory, for `why` and the audit; beyond it they go to files. `0`: none are kept, nothing can be recomputed.",
    ),
    key(
        "audit.disk",
        Shape::Bytes,
        "2GiB",
        "Admitted events in files below `data`; beyond it the oldest are let go.",
    ),
    key(
        "checkpoints.every",
        Shape::Duration,
        "30s",
        "How often the state is kept in `data/checkpoints`, while there is something new; a restart goes on from there. `0`: never, a restart reads everything again.",
    ),
    key(
        "checkpoints.keep",
        Shape::Whole,
        "3",
        "How many checkpoints stay, at least 2. The embedded log keeps what the oldest of them needs.",
    ),
    key(
        "checkpoints.place",
        Shape::Text,
        "data/checkpoints",
        "Where the state is kept: a folder, or `s3://bucket/prefix` (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`).",
    ),
];

/// The JSON Schema for editors (draft 2020-12).
pub fn json_schema() -> Value {
    let mut root = object("Streamgauge settings: streamgauge.yaml");
    for key in KEYS {
        insert(&mut root, key.path, key);
    }
    if let Some(map) = root.as_object_mut() {
        map.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        map.insert("title".into(), json!("Streamgauge Settings"));
    }
    root
}

fn object(description: &str) -> Value {
    json!({ "type": "object", "description": description, "additionalProperties": false, "properties": {} })
}

fn insert(at: &mut Value, path: &str, key: &Key) {
    let Some(map) = at.as_object_mut() else { return };
    let Some((first, rest)) = path.split_once('.') else {
        if key.required {
            let required = map.entry("required").or_insert_with(|| json!([]));
            if let Some(list) = required.as_array_mut() {
                list.push(json!(path));
            }
        }
        properties(map).insert(path.to_owned(), leaf(key));
        return;
    };
    if let Some(name) = first.strip_suffix("[]") {
        let list = properties(map)
            .entry(name)
            .or_insert_with(|| json!({ "type": "array", "items": object("One source") }));
        return insert(&mut list["items"], rest, key);
    }
    let section = properties(map).entry(first).or_insert_with(|| object(first));
    insert(section, rest, key);
}

fn properties(map: &mut Map<String, Value>) -> &mut Map<String, Value> {
    map.entry("properties")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .expect("properties is always an object")
}

fn leaf(key: &Key) -> Value {
    let mut schema = match key.shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Words(words) => json!({ "enum": words }),
        Shape::Texts => {
            json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
        }
        Shape::Whole => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^[0-9_]+$" }] })
        }
        Shape::Bytes => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^[0-9_]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)?$" }] })
        }
        Shape::Duration => json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }),
        Shape::Empty => json!({ "type": ["object", "null"], "maxProperties": 0 }),
        Shape::Secret => secret(),
        Shape::Properties => json!({ "type": "object", "additionalProperties": { "anyOf": [
            { "type": ["string", "number", "boolean"] },
            secret()
        ] } }),
    };
    schema["description"] = json!(key.doc);
    if !key.default.is_empty() {
        schema["description"] = json!(format!("{} Default: {}", key.doc, key.default));
    }
    schema
}

fn secret() -> Value {
    json!({ "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
            "properties": { "env": { "type": "string" }, "file": { "type": "string" } } })
}

/// `docs/reference/settings.md`, whole.
pub fn reference() -> String {
    let mut text = String::from(include_str!("reference.head.md"));
    text.push_str("| setting | what may stand there | default | what it does |\n|---|---|---|---|\n");
    for key in KEYS {
        let default = match key.default {
            "" if key.required => "required".to_owned(),
            "" => "none".to_owned(),
            default => format!("`{default}`"),
        };
        text.push_str(&format!("| `{}` | {} | {default} | {} |\n", key.path, shape_text(key.shape), key.doc));
    }
    text
}

fn shape_text(shape: Shape) -> String {
    match shape {
        Shape::Text => "text".into(),
        Shape::Words(words) => words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", "),
        Shape::Texts => "text or a list of texts".into(),
        Shape::Whole => "whole number".into(),
        Shape::Bytes => "size: `1MiB`, `10MB`, `4096`".into(),
        Shape::Duration => "duration: `500ms`, `30s`, `5m`, `24h`, `7d`".into(),
        Shape::Empty => "`{}`".into(),
        Shape::Secret => "`{ env: NAME }` or `{ file: PATH }`".into(),
        Shape::Properties => "mapping".into(),
    }
}
