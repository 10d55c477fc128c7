//! What PostgreSQL's errors mean to us (<https://www.postgresql.org/docs/current/errcodes-appendix.html>).

use crate::store::StoreError;

const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const QUERY_CANCELED: &str = "57014"; // the statement's time was up
const TOO_MANY_CONNECTIONS: &str = "53300";
const DISK_FULL: &str = "53100";
const CONSTRAINT_CLASS: &str = "23";
const UNIQUE_VIOLATION: &str = "23505";
/// The server ends the session (57P01 admin_shutdown, 57P02 crash_shutdown, 57P03 cannot_connect_now), or the transaction with it.
const SESSION_ENDS: [&str; 4] = ["57P01", "57P02", "57P03", "25P03"];
/// Ours: an append-only rule refuses.
const REFUSED: &str = "VP001";
/// Ours: a statement touched another number of rows than it must; the message names what.
const ROWS: &str = "VP002";

/// How one try of an operation failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// What the caller is to hear.
    Store(StoreError),
    /// Another transaction was in the way; this one was rolled back, and may be tried again.
    Contended,
    /// There is no connection to be had: nothing was sent.
    Unreachable(String),
    /// The connection was lost under a statement that does not commit by itself: nothing was written.
    Lost(String),
    /// The connection was lost under a commit.
    Unsure(String),
}

impl Fault {
    /// For errors of getting a connection.
    pub(super) fn unreachable(error: sqlx::Error) -> Self {
        match Self::from(error) {
            Self::Lost(why) => Self::Unreachable(why),
            other => other,
        }
    }

    /// Of a statement that commits (`COMMIT` itself, or one outside a transaction): lost under it, it may have been written.
    pub(super) fn of_a_statement(self) -> Self {
        match self {
            Self::Lost(why) => Self::Unsure(why),
            other => other,
        }
    }

    /// The same for one more who was in the same group.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Store(error) => Self::Store(StoreError::Failed(error.to_string())),
            Self::Contended => Self::Contended,
            Self::Unreachable(why) => Self::Unreachable(why.clone()),
            Self::Lost(why) => Self::Lost(why.clone()),
            Self::Unsure(why) => Self::Unsure(why.clone()),
        }
    }

    /// What the caller hears when no further try is made.
    pub(super) fn told(self) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Contended => StoreError::Busy,
            Self::Unreachable(why) | Self::Lost(why) => StoreError::Unreachable(why),
            Self::Unsure(why) => StoreError::Unsure(why),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned());
        match (&error, code.as_deref()) {
            (_, Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED)) => Self::Contended,
            (_, Some(LOCK_NOT_AVAILABLE | QUERY_CANCELED | TOO_MANY_CONNECTIONS)) => Self::Store(StoreError::Busy),
            (_, Some(DISK_FULL)) => Self::Store(StoreError::Failed(format!("its disk is full: {}", in_words(&error)))),
            (_, Some(REFUSED)) => Self::Store(StoreError::Refused(in_words(&error))),
            // Checks, uniqueness, foreign keys.
            (_, Some(code)) if code.starts_with(CONSTRAINT_CLASS) => Self::Store(StoreError::Refused(in_words(&error))),
            (_, Some(ROWS)) => Self::Store(conflict(&in_words(&error))),
            (_, Some(code)) if SESSION_ENDS.contains(&code) => Self::Lost(in_words(&error)),
            (sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::BeginFailed, _) => {
                Self::Lost(in_words(&error))
            }
            (sqlx::Error::PoolTimedOut, _) => Self::Store(StoreError::Busy), // others hold every connection
            (sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed, _) => Self::Unreachable(in_words(&error)),
            (_, _) => Self::Store(StoreError::Failed(in_words(&error))),
        }
    }
}

/// What a statement that asserts its row counts may name.
const COUNTED: [&str; 4] = ["attempt", "payment", "payment request", "outbox row"];

fn conflict(what: &str) -> StoreError {
    COUNTED.into_iter().find(|c| *c == what).map_or_else(|| StoreError::Failed(what.to_owned()), StoreError::Conflict)
}

/// The unique index or constraint that refused a row, by its name.
pub(super) fn duplicate_of(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?;
    if error.code().is_some_and(|c| c == UNIQUE_VIOLATION) { error.constraint() } else { None }
}

/// A duplicate row is `exists` to the caller; every other error stays what it is.
pub(super) fn exists(error: sqlx::Error, exists: &'static str) -> Fault {
    if duplicate_of(&error).is_some() { Fault::Store(StoreError::Exists(exists)) } else { error.into() }
}

/// The server's own message alone: its detail may quote a row.
pub(super) fn in_words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(e) => e.message().to_owned(),
        other => other.to_string(),
    }
}
