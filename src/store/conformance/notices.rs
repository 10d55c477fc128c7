//! Where tenants are told, and what they were told.

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::ids::{EndpointId, Tenant};
use crate::store::{Endpoint, EndpointSecret, StoreError};

on_both!(an_endpoint_is_written_over_the_version_that_was_read);

impl Bench {
    fn endpoint(&self, tenant: &str) -> Endpoint {
        Endpoint {
            id: EndpointId::fresh(&*self.entropy),
            tenant: Tenant::parse(tenant).unwrap(),
            url: "https://shop.example/hooks".into(),
            topics: vec!["payment.*".into()],
            secrets: vec![EndpointSecret { sealed: "00".into(), until: None }],
            disabled: false,
            version: 0,
            created_at: Timestamp(7),
        }
    }

    async fn write_endpoint(&self, endpoint: &Endpoint) -> Result<(), StoreError> {
        self.store.write_endpoint(endpoint, &self.audit()).await
    }

    async fn added_endpoint(&self, tenant: &str) -> Endpoint {
        let endpoint = self.endpoint(tenant);
        self.write_endpoint(&endpoint).await.unwrap();
        endpoint
    }
}

async fn an_endpoint_is_written_over_the_version_that_was_read(desk: Bench) {
    let (first, other) = (desk.added_endpoint("default").await, desk.added_endpoint("bank").await);
    assert_eq!(desk.store.endpoint(&first.id).await.unwrap(), Some(first.clone()));
    assert!(matches!(desk.write_endpoint(&first).await, Err(StoreError::Exists(_))));
    let secret = |sealed: &str, until| EndpointSecret { sealed: sealed.into(), until };
    let rotated = Endpoint { secrets: vec![secret("00", Some(Timestamp(90))), secret("11", None)], version: 1, ..first.clone() };
    desk.write_endpoint(&rotated).await.unwrap();
    let disabled = Endpoint { disabled: true, version: 2, ..rotated.clone() };
    desk.write_endpoint(&disabled).await.unwrap();
    assert_eq!(desk.store.endpoint(&first.id).await.unwrap(), Some(disabled.clone()));
    let enabled = Endpoint { disabled: false, url: "https://shop.example/new".into(), version: 3, ..disabled.clone() };
    desk.write_endpoint(&enabled).await.unwrap();
    // Whoever read an earlier version is too late; so is one that was never read, and nobody takes an endpoint to another tenant.
    let trail = desk.store.audit_trail(100).await.unwrap().len();
    let moved = Endpoint { tenant: Tenant::parse("bank").unwrap(), version: 4, ..enabled.clone() };
    let none = Endpoint { id: EndpointId::fresh(&*desk.entropy), version: 1, ..first.clone() };
    for late in [disabled, Endpoint { version: 9, ..enabled.clone() }, moved, none] {
        assert!(matches!(desk.write_endpoint(&late).await, Err(StoreError::Conflict(_))), "{late:?}");
    }
    assert_eq!(desk.store.audit_trail(100).await.unwrap().len(), trail, "nothing was written of what was refused");
    assert_eq!(desk.opened_again().await.endpoint(&first.id).await.unwrap(), Some(enabled.clone()));
    assert_eq!(desk.store.endpoint(&other.id).await.unwrap(), Some(other.clone()), "the other was left alone");
    assert_eq!(desk.store.endpoints(Some(&first.tenant)).await.unwrap(), [enabled]);
    assert_eq!(desk.store.endpoints(None).await.unwrap().len(), 2);
    // Of many who change the same version one is first.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, audit) = (desk.store.clone(), desk.audit());
        let mine = Endpoint { url: format!("https://shop.example/{n}"), version: 1, ..other.clone() };
        tasks.spawn(async move { store.write_endpoint(&mine, &audit).await });
    }
    let ended = tasks.join_all().await;
    assert_eq!(ended.iter().filter(|e| e.is_ok()).count(), 1, "{ended:?}");
    assert!(ended.iter().all(|e| matches!(e, Ok(()) | Err(StoreError::Conflict(_)))), "{ended:?}");
}
