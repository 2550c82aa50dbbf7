//! What an adapter says, ready to be applied.
//!
//! *In*: what `read` has checked. *Out*: plain data. *Never*: YAML, a name that is resolved per delivery.

use contracts::diagnostic::Diagnostic;
use contracts::text::SourceFile;
use regex::Regex;
use serde_json::Value;

use super::native::Native;
use super::path::Path;

/// How the deliveries of one tool become canonical events.
#[derive(Debug)]
pub struct Adapter {
    /// Name of the tool: `github`.
    pub name: String,
    /// The file, for people.
    pub file: String,
    /// What it takes, for people.
    pub description: String,
    /// Names of the headers that rules read, in lower case: they are stored with the delivery.
    pub headers: Vec<String>,
    /// What names a delivery, first that is there; redeliveries have the same name.
    pub(super) delivery: Option<Expr>,
    /// Key of the object that holds what all paths mean, where a body has it.
    pub(super) unwrap: Option<String>,
    /// What tells deliveries apart, for messages.
    pub(super) about: Vec<(String, Expr)>,
    pub(super) lets: Vec<Expr>,
    /// Looked at before the rules.
    pub(super) skip: Vec<Skip>,
    pub(super) rules: Vec<Rule>,
    /// Looked at when no rule fits.
    pub(super) otherwise: Vec<Skip>,
}

impl PartialEq for Adapter {
    /// Adapters are told apart by the file they were read from.
    fn eq(&self, other: &Self) -> bool {
        self.file == other.file && self.name == other.name
    }
}

impl Eq for Adapter {}

impl Adapter {
    /// Reads an adapter's YAML.
    ///
    /// # Errors
    /// Every mistake of the file with its place.
    pub fn read(file: &SourceFile) -> Result<Self, Vec<Diagnostic>> {
        super::read::read(file)
    }

    /// The canonical event types it makes, sorted.
    pub fn emits(&self) -> Vec<&str> {
        let mut types: Vec<&str> = self.rules.iter().map(|rule| rule.emit.as_str()).collect();
        types.sort_unstable();
        types.dedup();
        types
    }

    /// The name of a delivery by its headers and body; `None`: it has none.
    pub fn delivery_name(&self, body: &[u8], headers: &[(&str, &[u8])]) -> Option<String> {
        let expr = self.delivery.as_ref()?;
        // Most tools say it in a header: no need to parse the body then.
        let empty = Value::Null;
        let by_headers = super::eval::Delivery::new(self, &empty, headers, 0).text(expr);
        by_headers.or_else(|| {
            let bodies = super::body::read(body, headers, self.unwrap.as_deref()).ok()?;
            let [body] = bodies.as_slice() else { return None };
            super::eval::Delivery::new(self, &body.value, headers, 0).text(expr)
        })
    }
}

/// Deliveries that are understood and of no use.
#[derive(Debug)]
pub(super) struct Skip {
    pub(super) when: When,
}

/// One event per delivery that fits, or per item of a list in it.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) when: When,
    pub(super) each: Option<Path>,
    /// Which items.
    pub(super) only: When,
    pub(super) emit: String,
    pub(super) fields: Vec<(String, Expr)>,
}

/// Any of these, all of their clauses; none at all: always.
#[derive(Debug, Default)]
pub(super) struct When(pub(super) Vec<Vec<Clause>>);

#[derive(Debug)]
pub(super) struct Clause {
    pub(super) of: Expr,
    pub(super) test: Test,
}

#[derive(Debug)]
pub(super) enum Test {
    OneOf(Vec<String>),
    NoneOf(Vec<String>),
    Present(bool),
    Matches(Regex),
}

/// How a value is made. Null is "nothing"; a field of nothing is left out.
#[derive(Debug)]
pub(super) enum Expr {
    Const(Value),
    Path(Path),
    /// Index into [`Adapter::lets`].
    Let(usize),
    First(Vec<Expr>),
    Time(Box<Expr>),
    Match {
        regex: Regex,
        of: Box<Expr>,
    },
    Has {
        regex: Regex,
        of: Box<Expr>,
    },
    Lower(Box<Expr>),
    Map {
        of: Box<Expr>,
        table: Vec<(String, Value)>,
        otherwise: Option<Box<Expr>>,
    },
    Join {
        parts: Vec<Expr>,
        with: String,
    },
    /// Lists in it are laid out flat; `without` is left out.
    List {
        parts: Vec<Expr>,
        without: Option<Box<Expr>>,
    },
    /// The integer a text says.
    Number(Box<Expr>),
    Same(Vec<Expr>),
    If {
        when: When,
        then: Box<Expr>,
        otherwise: Option<Box<Expr>>,
    },
    Sum(Vec<Expr>),
    Minus(Vec<Expr>),
    Pad {
        of: Box<Expr>,
        to: usize,
    },
    /// With a digest of all other fields behind it.
    Versioned(Box<Expr>),
    Native(Native),
}
