//! What a task returns, and why a task fails.
//!
//! # Invariants
//!
//! 1. A value never changes once it was made, so any number of tasks may look at it.
//!
//! # Failure
//!
//! A value of another type than its reader expects is a [`TaskError`] with both names.

use std::any::{Any, type_name};
use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// What a task returns. Cheap to clone: it is shared, not copied.
#[derive(Clone)]
pub struct Value {
    content: Arc<dyn Any + Send + Sync>,
    bytes: u64,
}

impl Value {
    /// Wraps `content`, which keeps `bytes` of memory as long as it lives.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(content: T, bytes: u64) -> Self {
        Self { content: Arc::new(content), bytes }
    }

    /// The content, if it is a `T`.
    #[must_use]
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.content.downcast_ref()
    }

    /// The content as a `T`.
    ///
    /// # Errors
    ///
    /// [`TaskError`] if it is something else.
    pub fn expect<T: Any>(&self) -> Result<&T, TaskError> {
        self.get().ok_or_else(|| TaskError::from(format!("the value is no {}", type_name::<T>())))
    }

    /// Bytes of memory that the value keeps, as was said when it was made.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({} bytes)", self.bytes)
    }
}

/// Why a task failed. Any error becomes one by `?`, and so does a text.
pub struct TaskError(Box<dyn Error + Send + Sync>);

impl TaskError {
    /// The error that the task met.
    #[must_use]
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// The error that the task met, for whoever passes it on.
    #[must_use]
    pub fn into_cause(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for TaskError {
    fn from(cause: E) -> Self {
        Self(cause.into())
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_what_it_is_and_as_nothing_else() {
        let value = Value::new(3_i64, 8);
        assert_eq!((value.get::<i64>(), value.get::<u64>(), value.bytes()), (Some(&3), None, 8));
        assert_eq!(value.expect::<u64>().unwrap_err().to_string(), "the value is no u64");
        assert_eq!(*value.clone().expect::<i64>().unwrap(), 3);
    }

    #[test]
    fn any_error_becomes_the_error_of_a_task_and_stays_what_it_was() {
        let fail = || -> Result<(), TaskError> { Err(std::io::Error::other("disk"))? };
        let error = fail().unwrap_err();
        assert!(error.cause().is::<std::io::Error>());
        assert_eq!(error.to_string(), "disk");
    }
}
