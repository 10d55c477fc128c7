//! What people may ask about themselves, over the API: consents, taking them back, everything that is held; and what is left after a deletion.

use std::sync::Arc;

use serde_json::{Value, json};
use voicepay::clock::{Clock, SystemClock, SystemEntropy};
use voicepay::ids::{AuditId, CustomerId};
use voicepay::store::{AuditRecord, EnrolmentRecord, FingerprintRecord, TemplateRecord, customer_key_to_seal};

use super::support::{CARD, Shop};

/// What stands for an embedding: found, if it leaks in the clear.
const VOICE: &[u8] = b"an-embedding-that-must-never-be-seen-in-the-clear";

/// A voice as a call would leave it: a sealed template and a sealed fingerprint.
async fn enrol(shop: &Shop, customer: &str) -> Vec<u8> {
    let (office, now) = (shop.service.office(), SystemClock.now());
    let customer = CustomerId::parse(customer).unwrap();
    let key = customer_key_to_seal(&*office.store, &office.vault, &customer).await.unwrap();
    let sealed = key.seal_template("m-1", VOICE).unwrap();
    let record = EnrolmentRecord {
        template: TemplateRecord { customer: customer.clone(), model: "m-1".into(), sealed: sealed.clone(), created_at: now },
        invite: None,
        consent_text_version: "written-1".into(),
        consent_by: "J. Clerk, form 118".into(),
        consent_at: now,
        call: None,
    };
    let audit = AuditRecord {
        id: AuditId::fresh(&SystemEntropy),
        at: now,
        actor: "test".into(),
        action: "voice.enrolled".into(),
        subject: customer.to_string(),
        detail: json!({}),
    };
    office.store.complete_enrolment(&record, &audit).await.unwrap();
    let print = FingerprintRecord {
        customer,
        sealed: key.seal_fingerprint(VOICE).unwrap(),
        heard_at: now,
        expires_at: now.plus(std::time::Duration::from_secs(600)),
    };
    office.store.keep_fingerprint(&print, 9).await.unwrap();
    sealed
}

fn find(all: &[u8], what: &[u8]) -> bool {
    all.windows(what.len()).any(|w| w == what)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consent_taken_back_takes_the_voice_along_and_the_audit_proves_it() {
    let shop = Shop::open().await;
    let customer = shop.request().await["customer"].as_str().unwrap().to_owned();
    let sealed = enrol(&shop, &customer).await;
    assert!(find(&shop.all_files(), &sealed), "the search sees a sealed template");
    let follow = format!("/v1/customers/{customer}/voice/following");
    shop.post(&follow, json!({ "consent_by": "J. Clerk, form 119" })).await.good(200);
    let consents = format!("/v1/customers/{customer}/consents");
    let listed = shop.get(&consents).await.good(200);
    let [voice, following] = &listed["data"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&voice["purpose"], &voice["how"], &voice["withdrawn"]), (&json!("voiceprint"), &json!("voucher"), &json!(null)));
    assert_eq!((&following["purpose"], &following["how"]), (&json!("following"), &json!("api")));
    assert_eq!((&following["given_by"], &following["text_version"]), (&json!("J. Clerk, form 119"), &json!("written-1")));

    let withdraw = |c: &Value| format!("{consents}/{}/withdraw", c["id"].as_str().unwrap());
    let ended = shop.post(&withdraw(following), json!({})).await.good(200);
    assert_eq!(ended["withdrawn"]["how"], "api");
    let now = shop.get(&format!("/v1/customers/{customer}/voice")).await.good(200);
    assert_eq!((&now["enrolled"], &now["follows_since"]), (&json!(true), &json!(null)));

    let ended = shop.post(&withdraw(voice), json!({})).await.good(200);
    assert!(ended["withdrawn"]["by"].as_str().unwrap().starts_with("api:key_"), "{ended}");
    assert_eq!(shop.post(&withdraw(voice), json!({})).await.good(200), ended, "again changes nothing");
    let now = shop.get(&format!("/v1/customers/{customer}/voice")).await.good(200);
    assert_eq!(now["enrolled"], false);

    let trail = shop.get(&format!("/v1/audit?subject={customer}")).await.good(200);
    let row = trail["data"].as_array().unwrap().iter().find(|r| r["action"] == "voice.withdrawn").unwrap().clone();
    assert_eq!(row["detail"]["consent"], voice["id"]);
    let erased = &row["detail"]["erased"];
    for what in ["templates", "fingerprints", "keys", "consents_ended"] {
        assert_eq!(erased[what], 1, "{what}: {row}");
    }
    let (office, id) = (shop.service.office(), CustomerId::parse(&customer).unwrap());
    assert_eq!(office.store.fingerprint_count(&id).await.unwrap(), 0);
    assert!(office.store.customer_key(&id).await.unwrap().is_none(), "what a backup still has of it opens no more");
    let other = shop.request().await["customer"].as_str().unwrap().to_owned();
    let foreign = format!("/v1/customers/{other}/consents/{}/withdraw", voice["id"].as_str().unwrap());
    shop.post(&foreign, json!({})).await.refused(404, "not-found");
    // Closed, it has no log beside it that a reader could have kept from being emptied.
    shop.service.office().store.close().await;
    assert!(!find(&shop.all_files(), &sealed), "no sealed template is left in the database");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_holds_everything_but_secrets_and_is_noted() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let customer = request["customer"].as_str().unwrap().to_owned();
    let payment = shop.pay(&request).await;
    enrol(&shop, &customer).await;
    // Somebody else's: nothing of it may come along.
    let other = shop.request().await;
    let other_payment = shop.pay(&other).await;

    let path = format!("/v1/customers/{customer}/export");
    let whole = shop.get(&path).await.good(200);
    assert_eq!((&whole["format"], &whole["next"]), (&json!("voicepay-export/1"), &json!(null)));
    let person = &whole["person"];
    assert_eq!((&person["name"], &person["numbers"]), (&json!("Ann Smith"), &json!(["+442079460958"])));
    assert_eq!((&person["cards"][0]["last4"], &person["voice"]["held"]), (&json!("1111"), &json!(true)));
    assert_eq!((&person["voice"]["model"], &person["voice"]["fingerprints"]), (&json!("m-1"), &json!(1)));
    assert_eq!(person["consents"][0]["purpose"], "voiceprint");
    assert!(person["kept_for"].as_array().unwrap().iter().any(|c| c["key"] == "retention.call_records_days"));
    assert_eq!((&whole["requests"][0]["id"], &whole["payments"][0]["id"]), (&request["id"], &json!(payment)));
    let actions: Vec<_> = whole["audit"].as_array().unwrap().iter().map(|r| r["action"].as_str().unwrap().to_owned()).collect();
    for action in ["customer.added", "request.added", "card.added", "charge.submitted", "voice.enrolled", "transfer.pending"] {
        assert!(actions.contains(&action.to_owned()), "{action}: {actions:?}");
    }
    let text = whole.to_string();
    let base64 = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD_NO_PAD.encode(VOICE)
    };
    for secret in [CARD, std::str::from_utf8(VOICE).unwrap(), &base64[..40], other_payment.as_str()] {
        assert!(!text.contains(secret), "{secret}");
    }

    // Page by page it is the same.
    let (mut pages, mut items, mut next) = (0, 0, format!("{path}?limit=2"));
    loop {
        let page = shop.get(&next).await.good(200);
        assert_eq!(page["person"].is_null(), pages > 0);
        pages += 1;
        items += ["requests", "payments", "calls", "papers"].iter().map(|l| page[*l].as_array().unwrap().len()).sum::<usize>();
        let Some(after) = page["next"].as_str() else { break };
        next = format!("{path}?limit=2&after={after}");
    }
    assert!(pages > 3 && items == 2, "{pages} pages with {items} things");
    shop.get(&format!("{path}?after=x")).await.refused(400, "invalid");

    let trail = shop.get(&format!("/v1/audit?subject={customer}&limit=100")).await.good(200);
    let exports = trail["data"].as_array().unwrap().iter().filter(|r| r["action"] == "customer.exported").collect::<Vec<_>>();
    assert_eq!(exports.len(), 2, "one an export, however many its pages");
    assert!(exports[0]["actor"].as_str().unwrap().starts_with("api:key_"));

    let reader = shop.key_for("default", &[voicepay::api::Scope::CustomersRead], None).await;
    shop.get_with(&reader, &path).await.refused(403, "scope");
    let bank = shop.key_for("bank", &voicepay::api::Scope::ALL, None).await;
    shop.get_with(&bank, &path).await.refused(404, "not-found");
    shop.service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_deleted_customer_nothing_opens_and_money_stays() {
    let shop = Shop::open().await;
    let request = shop.request().await;
    let customer = request["customer"].as_str().unwrap().to_owned();
    let payment = shop.pay(&request).await;
    let sealed = enrol(&shop, &customer).await;
    shop.delete(&format!("/v1/customers/{customer}")).await.good(200);
    shop.get(&format!("/v1/customers/{customer}/export")).await.refused(404, "not-found");
    let (office, id) = (Arc::clone(&shop.service.office().store), CustomerId::parse(&customer).unwrap());
    let consents = office.consents_of(&id).await.unwrap();
    assert!(consents.iter().all(|c| c.withdrawn.is_some()) && consents.len() == 1);
    let trail = shop.get(&format!("/v1/audit?subject={customer}")).await.good(200);
    let row = trail["data"].as_array().unwrap().iter().find(|r| r["action"] == "customer.deleted").unwrap().clone();
    assert_eq!((&row["detail"]["erased"]["card_keys"], &row["detail"]["erased"]["templates"]), (&json!(1), &json!(1)));
    assert_eq!(shop.get(&format!("/v1/payments/{payment}")).await.good(200)["standing"], "paid");
    office.close().await;
    let all = shop.all_files();
    for gone in [sealed.as_slice(), b"Ann Smith", b"+442079460958"] {
        assert!(!find(&all, gone), "{}", String::from_utf8_lossy(gone));
    }
}
