//! The events behind a number.
//!
//! *In*: the stages of a question. *Out*: how many rows came how far, which events they are. *Never*: more than a few.

use crate::ask::{AuditError, Recomputed};
use crate::stages::Work;

/// Fills counts, samples and losses where they are asked for.
pub(crate) fn explain(_work: &mut Work<'_>, _to: &mut Recomputed) -> Result<(), AuditError> {
    Ok(())
}
