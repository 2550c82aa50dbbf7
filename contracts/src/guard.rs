//! A panic in code that is not ours, as an error.
//!
//! *In*: work that may panic: a library on a value, a file or a contract that it did not expect. *Out*: what it gives, or
//! the words of the panic. *Never*: our own code guarded; a panic that ends the process although somebody handles it (the
//! program's panic hook asks [`is_guarded`]).

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Does `work`; a panic of it is the error, in its own words. What it was changing must not be used afterwards.
///
/// # Errors
/// The text of the panic.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    DEPTH.set(DEPTH.get() + 1);
    let done = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    done.map_err(|panic| text(&*panic))
}

/// A panic of this thread would be handled by [`guarded`].
pub fn is_guarded() -> bool {
    DEPTH.get() > 0
}

/// What a panic says.
pub fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_leaves_no_guard_behind() {
        assert!(!is_guarded());
        assert_eq!(guarded(|| (is_guarded(), guarded(is_guarded))), Ok((true, Ok(true))));
        let empty: Vec<u32> = Vec::new();
        assert!(guarded(|| empty[std::hint::black_box(1)]).unwrap_err().contains("out of bounds"));
        assert!(!is_guarded());
    }
}
