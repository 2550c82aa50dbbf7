//! A mistake on its way to its place.
//!
//! *In*: what a check of ours or DataFusion refuses. *Out*: a [`Fault`], later an [`ExprError`].
//! *Never*: a backtrace or DataFusion's wrapping in the text.

use std::ops::Range;

use datafusion_common::DataFusionError;

use super::ExprError;

/// A mistake whose place is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    code: Option<&'static str>,
    pub(super) message: String,
    found: Option<String>,
    allowed: Option<String>,
    fix: Option<String>,
}

impl Fault {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code: Some(code), message: message.into(), found: None, allowed: None, fix: None }
    }

    pub(super) fn found(self, found: impl Into<String>) -> Self {
        Self { found: Some(found.into()), ..self }
    }

    pub(super) fn allowed(self, allowed: impl Into<String>) -> Self {
        Self { allowed: Some(allowed.into()), ..self }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// Said by us, not by DataFusion.
    pub(super) fn is_ours(&self) -> bool {
        self.code.is_some()
    }

    pub(super) fn at(self, place: Range<usize>) -> ExprError {
        ExprError {
            found: self.found,
            allowed: self.allowed,
            fix: self.fix,
            ..ExprError::new(self.code.unwrap_or("type"), place, self.message)
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for DataFusionError {
    fn from(fault: Fault) -> Self {
        Self::External(Box::new(fault))
    }
}

impl From<DataFusionError> for Fault {
    fn from(error: DataFusionError) -> Self {
        if let DataFusionError::External(inner) = error.find_root()
            && let Some(fault) = inner.downcast_ref::<Self>()
        {
            return fault.clone();
        }
        let text = error.find_root().strip_backtrace();
        let text = ["Error during planning: ", "This feature is not implemented: ", "Arrow error: "]
            .iter()
            .fold(text.as_str(), |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
        Self { code: None, message: text.to_owned(), found: None, allowed: None, fix: None }
    }
}
