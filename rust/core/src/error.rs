use std::fmt;

/// What was wrong with an argument: its name, and what was expected instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The argument's name, as the caller knows it.
    pub argument: &'static str,
    /// What was expected, and what came.
    pub problem: String,
}

/// The result of a call that checks its arguments.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(argument: &'static str, problem: impl Into<String>) -> Self {
        Self { argument, problem: problem.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.argument, self.problem)
    }
}

impl std::error::Error for Error {}
