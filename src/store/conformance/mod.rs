//! One suite for every database. A behaviour is a function over [`Bench`]; [`on_both`] makes a test of it on SQLite and one on PostgreSQL. Where
//! no PostgreSQL server can be started the second says so on standard error and tests nothing; `scripts/test.sh` makes that a failure.

mod backups;
mod bank;
mod callbacks;
mod calls;
mod chain;
mod clients;
mod consents;
mod migrations;
mod money;
mod notices;
mod papers;
mod people;
mod plans;
mod retention;
mod trail;
mod voices;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection};

use crate::clock::{Entropy, SeededEntropy, Timestamp};
use crate::e164::E164;
use crate::ids::{AuditId, CardId, CustomerId, InviteId};
use crate::language::Language;
use crate::store::postgres::lab::Database;
use crate::store::{
    AuditRecord, CardRecord, CardStatus, Consenting, Customer, CustomerStatus, DatabaseUrl, EnrolmentRecord, Invite, PgStore,
    SqliteStore, Store, StoreConfig, StoreError, TemplateRecord,
};
use crate::vault::Sealed;

/// Makes two tests of each behaviour.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    super::$name(crate::store::conformance::Bench::sqlite().await).await;
                }
            )+
        }
        mod on_postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    if let Some(bench) = crate::store::conformance::Bench::postgres().await {
                        super::$name(bench).await;
                    }
                }
            )+
        }
    };
}
pub(super) use on_both;

/// A fresh database with what tests fill it with.
pub(super) struct Bench {
    pub(super) store: Arc<dyn Store>,
    pub(super) entropy: Arc<dyn Entropy>,
    place: Place,
}

enum Place {
    Sqlite(tempfile::TempDir),
    Postgres(Database),
}

/// More connections than tasks need at once would hide a wait; fewer would be the only thing that the races test.
const CONNECTIONS: u32 = 16;

impl Bench {
    pub(super) async fn sqlite() -> Self {
        Self::at(Place::Sqlite(tempfile::tempdir().unwrap())).await
    }

    pub(super) async fn postgres() -> Option<Self> {
        Some(Self::at(Place::Postgres(Database::fresh().await?)).await)
    }

    async fn at(place: Place) -> Self {
        let store = place.open().await;
        Self { store, entropy: Arc::new(SeededEntropy::new(3)), place }
    }

    /// What another process, or this one after a restart, has in hand.
    pub(super) async fn opened_again(&self) -> Arc<dyn Store> {
        self.place.open().await
    }

    pub(super) fn config(&self) -> StoreConfig {
        self.place.config()
    }

    pub(super) async fn close(&self) {
        self.store.close().await;
    }

    pub(super) fn on_postgres(&self) -> bool {
        matches!(self.place, Place::Postgres(_))
    }

    /// Where the database's files are, if they are its own.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Sqlite(dir) => Some(dir.path()),
            Place::Postgres(_) => None,
        }
    }

    /// A statement behind the store's back: how many rows it touched, or the database's refusal.
    pub(super) async fn sql(&self, sql: &str) -> Result<u64, String> {
        self.place.sql(sql).await
    }

    pub(super) fn audit(&self) -> AuditRecord {
        AuditRecord {
            id: AuditId::fresh(&*self.entropy),
            at: Timestamp(1),
            actor: "test".into(),
            action: "did".into(),
            subject: "it".into(),
            detail: json!({}),
        }
    }

    pub(super) async fn customer(&self, number: &str, customer_number: &str) -> CustomerId {
        let customer = Customer {
            tenant: crate::ids::Tenant::default(),
            id: CustomerId::fresh(&*self.entropy),
            name: "Zebedee Quux".into(),
            customer_number: customer_number.into(),
            numbers: vec![E164::normalise(number, "").unwrap()],
            status: CustomerStatus::Active,
            language: Language::English,
            created_at: Timestamp(1),
        };
        self.store.add_customer(&customer, &self.audit()).await.unwrap();
        assert_eq!(self.store.customer(&customer.id).await.unwrap().unwrap(), customer);
        customer.id
    }

    pub(super) fn card(&self, customer: &CustomerId, digest: u8) -> CardRecord {
        CardRecord {
            id: CardId::fresh(&*self.entropy),
            customer: customer.clone(),
            last4: "1111".into(),
            length: 16,
            expiry: Some("09/29".parse().unwrap()),
            status: CardStatus::Active,
            sealed: Sealed { body: b"SEALEDSEALEDSEALED".to_vec(), key: None },
            digest: [digest; 32],
            created_at: Timestamp(1),
        }
    }

    pub(super) fn fresh_invite(&self, customer: &CustomerId) -> Invite {
        Invite { id: InviteId::fresh(&*self.entropy), customer: customer.clone(), expires_at: Timestamp(1000), wrong_tries: 0 }
    }

    pub(super) async fn invite(&self, customer: &CustomerId, digest: u8) -> Invite {
        let invite = self.fresh_invite(customer);
        self.store.add_invite(&invite, &[digest; 32], &self.audit()).await.unwrap();
        invite
    }

    pub(super) fn enrolment(&self, invite: &Invite) -> EnrolmentRecord {
        EnrolmentRecord {
            template: TemplateRecord {
                customer: invite.customer.clone(),
                model: "m-1".into(),
                sealed: b"VOICEVOICEVOICE".to_vec(),
                created_at: Timestamp(5),
            },
            invite: Some(invite.id.clone()),
            consent_text_version: "1".into(),
            consent_by: "the caller".into(),
            consent_at: Timestamp(5),
            call: None,
        }
    }
}

/// A consent that somebody vouches for.
pub(super) fn consenting(at: i64) -> Consenting {
    Consenting { text_version: "written-1".into(), by: "J. Clerk".into(), at: Timestamp(at), call: None }
}

impl Place {
    fn file(dir: &tempfile::TempDir) -> PathBuf {
        dir.path().join("v.db")
    }

    fn config(&self) -> StoreConfig {
        let connections = CONNECTIONS;
        match self {
            Self::Sqlite(dir) => StoreConfig { path: Self::file(dir), connections, ..StoreConfig::default() },
            Self::Postgres(database) => {
                StoreConfig { url: Some(DatabaseUrl::parse(&database.url).unwrap()), connections, ..StoreConfig::default() }
            }
        }
    }

    async fn open(&self) -> Arc<dyn Store> {
        self.try_open().await.unwrap()
    }

    async fn try_open(&self) -> Result<Arc<dyn Store>, StoreError> {
        let cfg = self.config();
        match &cfg.url {
            None => Ok(Arc::new(SqliteStore::open(&cfg).await?)),
            Some(url) => Ok(Arc::new(PgStore::open(url, &cfg).await?)),
        }
    }

    async fn sql(&self, sql: &str) -> Result<u64, String> {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(dir) => {
                let url = format!("sqlite://{}", Self::file(dir).display());
                let mut connection = SqliteConnection::connect(&url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.map(|r| r.rows_affected()).map_err(|e| e.to_string())
            }
            Self::Postgres(database) => {
                let mut connection = PgConnection::connect(&database.url).await.unwrap();
                sqlx::raw_sql(sql).execute(&mut connection).await.map(|r| r.rows_affected()).map_err(|e| e.to_string())
            }
        }
    }
}
