//! Tenants, keys of the API, answers that are given again, and pages.

use super::{Bench, on_both};
use crate::clock::Timestamp;
use crate::e164::E164;
use crate::ids::{ApiKeyId, CustomerId, PayeeId, Tenant};
use crate::language::Language;
use crate::store::{
    ApiKeyRecord, Asked, AuditRecord, Customer, CustomerStatus, Earlier, Listed, Payee, StoreError, TenantRecord,
};

on_both!(
    a_key_is_found_by_its_digest_and_taken_back_once,
    an_idempotency_key_is_answered_once_and_the_same_again,
    of_many_that_ask_at_once_one_gets_the_key,
    pages_hold_what_is_the_tenants_and_nothing_else,
    the_trail_of_one_subject_is_read_page_by_page,
);

async fn tenant(desk: &Bench, name: &str) -> Tenant {
    let record = TenantRecord { name: Tenant::parse(name).unwrap(), title: "A shop".into(), created_at: Timestamp(1) };
    desk.store.add_tenant(&record, &desk.audit()).await.unwrap();
    record.name
}

async fn key(desk: &Bench, tenant: &Tenant, digest: u8) -> ApiKeyRecord {
    let key = ApiKeyRecord {
        id: ApiKeyId::fresh(&*desk.entropy),
        tenant: tenant.clone(),
        name: "till".into(),
        scopes: vec!["payees:read".into(), "requests:write".into()],
        created_at: Timestamp(5),
        expires_at: Some(Timestamp(100)),
        revoked_at: None,
    };
    desk.store.add_api_key(&key, &[digest; 32], &desk.audit()).await.unwrap();
    key
}

async fn a_key_is_found_by_its_digest_and_taken_back_once(desk: Bench) {
    let shop = tenant(&desk, "shop").await;
    let names: Vec<_> = desk.store.tenants().await.unwrap().into_iter().map(|t| t.name.to_string()).collect();
    assert_eq!(names, ["default", "shop"]);
    let twice = TenantRecord { name: shop.clone(), title: "Another".into(), created_at: Timestamp(2) };
    assert!(matches!(desk.store.add_tenant(&twice, &desk.audit()).await, Err(StoreError::Exists(_))));
    let till = key(&desk, &shop, 1).await;
    assert_eq!(desk.store.api_key(&[1; 32]).await.unwrap(), Some(till.clone()));
    assert_eq!(desk.store.api_key(&[2; 32]).await.unwrap(), None);
    assert!(till.good(Timestamp(99)) && !till.good(Timestamp(100)), "an expired key opens nothing");
    let nobodys = ApiKeyRecord { tenant: Tenant::parse("nobody").unwrap(), id: ApiKeyId::fresh(&*desk.entropy), ..till.clone() };
    assert!(matches!(desk.store.add_api_key(&nobodys, &[3; 32], &desk.audit()).await, Err(StoreError::NotFound(_))));
    desk.store.revoke_api_key(&till.id, Timestamp(9), &desk.audit()).await.unwrap();
    let again = desk.store.revoke_api_key(&till.id, Timestamp(10), &desk.audit()).await;
    assert!(matches!(again, Err(StoreError::NotFound(_))));
    let all = desk.store.api_keys().await.unwrap();
    assert_eq!(all, [ApiKeyRecord { revoked_at: Some(Timestamp(9)), ..till }]);
    assert!(!all[0].good(Timestamp(6)));
}

fn asked(key: &ApiKeyRecord, name: &str, request: u8, now: i64) -> Asked {
    Asked {
        api_key: key.id.clone(),
        key: name.into(),
        request: [request; 32],
        now: Timestamp(now),
        leased_to: Timestamp(now + 10),
        expires_at: Timestamp(now + 1_000),
    }
}

async fn an_idempotency_key_is_answered_once_and_the_same_again(desk: Bench) {
    let till = key(&desk, &tenant(&desk, "shop").await, 1).await;
    let begin = async |a: Asked| desk.store.begin_answer(&a).await.unwrap();
    let first = asked(&till, "k", 1, 1_000);
    assert_eq!(begin(first.clone()).await, Earlier::Yours { begun_at: Timestamp(1_000) });
    assert_eq!(begin(asked(&till, "k", 1, 1_009)).await, Earlier::InFlight);
    assert_eq!(begin(asked(&till, "k", 2, 1_009)).await, Earlier::OtherRequest);
    // Whoever was at it is gone: the next one goes on, knows when it began, and the first one's answer comes too late.
    let second = asked(&till, "k", 1, 1_010);
    assert_eq!(begin(second.clone()).await, Earlier::Yours { begun_at: Timestamp(1_000) });
    assert!(matches!(desk.store.keep_answer(&first, 201, b"late").await, Err(StoreError::Conflict(_))));
    desk.store.drop_answer(&first).await.unwrap();
    desk.store.keep_answer(&second, 201, b"made").await.unwrap();
    assert_eq!(begin(asked(&till, "k", 1, 1_500)).await, Earlier::Answered { status: 201, body: b"made".to_vec() });
    assert_eq!(begin(asked(&till, "k", 2, 1_500)).await, Earlier::OtherRequest);
    assert_eq!(begin(asked(&till, "k", 2, 2_000)).await, Earlier::Yours { begun_at: Timestamp(2_000) }, "it is free again");
    let dropped = asked(&till, "d", 1, 1_000);
    assert_eq!(begin(dropped.clone()).await, Earlier::Yours { begun_at: Timestamp(1_000) });
    desk.store.drop_answer(&dropped).await.unwrap();
    assert_eq!(begin(asked(&till, "d", 2, 1_001)).await, Earlier::Yours { begun_at: Timestamp(1_001) });
    assert_eq!(desk.store.sweep_answers(Timestamp(2_001)).await.unwrap(), 1);
    assert_eq!(desk.store.sweep_answers(Timestamp(9_999)).await.unwrap(), 1);
}

async fn of_many_that_ask_at_once_one_gets_the_key(desk: Bench) {
    let till = key(&desk, &tenant(&desk, "shop").await, 1).await;
    for round in 0..5 {
        let tasks: Vec<_> = (0..12)
            .map(|_| {
                let (store, asked) = (desk.store.clone(), asked(&till, &format!("k{round}"), 1, 1_000));
                tokio::spawn(async move { store.begin_answer(&asked).await.unwrap() })
            })
            .collect();
        let mut mine = 0;
        for task in tasks {
            match task.await.unwrap() {
                Earlier::Yours { .. } => mine += 1,
                Earlier::InFlight => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(mine, 1);
    }
}

async fn customer_of(desk: &Bench, tenant: &Tenant, number: u32) -> CustomerId {
    let customer = Customer {
        id: CustomerId::fresh(&*desk.entropy),
        tenant: tenant.clone(),
        name: "Zebedee Quux".into(),
        customer_number: format!("{number:06}"),
        numbers: vec![E164::normalise("+442079460958", "").unwrap()],
        status: CustomerStatus::Active,
        language: Language::English,
        created_at: Timestamp(1),
    };
    desk.store.add_customer(&customer, &desk.audit()).await.unwrap();
    customer.id
}

async fn pages_hold_what_is_the_tenants_and_nothing_else(desk: Bench) {
    let (shop, bank) = (tenant(&desk, "shop").await, tenant(&desk, "bank").await);
    let mut of_shop = Vec::new();
    for n in 0..7 {
        of_shop.push(customer_of(&desk, &shop, n).await.to_string());
        customer_of(&desk, &bank, 100 + n).await;
    }
    of_shop.sort();
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    for pages in 1.. {
        let page = desk.store.page(&shop, Listed::Customers, after.as_deref(), 3).await.unwrap();
        assert!(page.ids.len() <= 3 && pages <= 3);
        seen.extend(page.ids);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, of_shop);
    let gone = CustomerId::parse(&of_shop[0]).unwrap();
    desk.store.delete_customer(&gone, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.page(&shop, Listed::Customers, None, 50).await.unwrap().ids, of_shop[1..]);
    let payee = Payee {
        id: PayeeId::fresh(&*desk.entropy),
        tenant: bank.clone(),
        category: None,
        name: "Bank".into(),
        spoken_name_wav: None,
        created_at: Timestamp(1),
    };
    desk.store.add_payee(&payee, &desk.audit()).await.unwrap();
    assert_eq!(desk.store.page(&bank, Listed::Payees, None, 5).await.unwrap().ids, [payee.id.to_string()]);
    let call = |id: &str, customer: &str| {
        format!("INSERT INTO calls (id, customer_id, trunk, started_at, record) VALUES ('{id}', {customer}, 't', 1, '{{}}')")
    };
    let (ours, theirs) = (format!("'{}'", of_shop[1]), desk.store.page(&bank, Listed::Customers, None, 1).await.unwrap());
    for (id, customer) in [("call_1", "NULL"), ("call_2", &ours), ("call_3", &format!("'{}'", theirs.ids[0])), ("call_4", &ours)]
    {
        desk.sql(&call(id, customer)).await.unwrap();
    }
    let calls = desk.store.page(&shop, Listed::Calls, None, 1).await.unwrap();
    assert_eq!((calls.ids, calls.next.as_deref()), (vec!["call_4".to_owned()], Some("call_4")));
    let calls = desk.store.page(&shop, Listed::Calls, Some("call_4"), 5).await.unwrap();
    assert_eq!((calls.ids, calls.next), (vec!["call_2".to_owned()], None));
    for of in Listed::ALL {
        assert!(desk.store.page(&Tenant::parse("nobody").unwrap(), of, None, 5).await.unwrap().ids.is_empty());
    }
}

async fn the_trail_of_one_subject_is_read_page_by_page(desk: Bench) {
    let nothing = desk.store.audit_of("it", 0, 10).await.unwrap();
    assert!(nothing.rows.is_empty() && nothing.next.is_none());
    for n in 0..40 {
        let subject = if n % 10 == 7 { "ours" } else { "theirs" };
        let row = AuditRecord { at: Timestamp(n), subject: subject.into(), ..desk.audit() };
        desk.store.audit(&row).await.unwrap();
    }
    let page = async |after: u64, limit: u16| {
        let found = desk.store.audit_of("ours", after, limit).await.unwrap();
        assert!(found.rows.iter().all(|(_, r)| r.subject == "ours"));
        (found.rows.iter().map(|(_, r)| r.at.0).collect::<Vec<_>>(), found.next)
    };
    let (times, next) = page(0, 3).await;
    assert_eq!(times, [7, 17, 27]);
    assert_eq!(page(next.unwrap(), 3).await, (vec![37], None));
    assert_eq!(page(0, 4).await, (vec![7, 17, 27, 37], None), "a full page is the last where nothing follows");
    assert_eq!(page(u64::try_from(i64::MAX).unwrap(), 4).await, (Vec::new(), None));
}
