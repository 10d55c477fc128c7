//! Several writes that go to the database together. Each statement that goes alone costs two changes of thread, which is more than the statement
//! itself; a whole submission is one of these.

use sqlx::sqlite::{SqliteArguments, SqliteQueryResult};
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

use super::{exists, fault};
use crate::store::StoreError;

/// Statements of which each must touch exactly one row. Their parameters are plain `?`, in order.
#[derive(Default)]
pub(super) struct Batch {
    sql: String,
    arguments: SqliteArguments,
    statements: u64,
    failed: Option<String>,
}

impl Batch {
    /// One more statement; only constants, so that nothing from outside becomes SQL.
    pub(super) fn add(&mut self, sql: &'static str) -> &mut Self {
        self.sql.push_str(sql);
        self.sql.push(';');
        self.statements = self.statements.saturating_add(1);
        self
    }

    /// The next parameter.
    pub(super) fn bind<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.failed = Some(error.to_string());
        }
        self
    }

    /// Runs them. Fewer rows than statements: `otherwise`. Inside a transaction, whose savepoint takes back what went before.
    pub(super) async fn run(self, conn: &mut SqliteConnection, otherwise: StoreError) -> Result<SqliteQueryResult, StoreError> {
        if let Some(why) = self.failed {
            return Err(StoreError::Failed(why));
        }
        let done = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments).execute(conn).await.map_err(in_full)?;
        if done.rows_affected() == self.statements { Ok(done) } else { Err(otherwise) }
    }
}

fn in_full(error: sqlx::Error) -> StoreError {
    let drawn_twice = matches!(&error, sqlx::Error::Database(e) if e.message().contains("receipts.reference"));
    if drawn_twice { exists(error, "a receipt with this reference") } else { fault(error) }
}
