//! Consents: given with what they allow, ended with it, and never changed.

use serde_json::json;

use super::{Bench, consenting, on_both};
use crate::clock::Timestamp;
use crate::ids::{AccountId, CallId, CardId, ConsentId, CustomerId, IntentId, MainAccountId, MandateId, PayeeId};
use crate::money::{Currency, Money};
use crate::payment::account::WORDING;
use crate::payment::{AccountState, ConfirmedBy, Consent as AccountConsent, Limits, Mandate, Occasion, PurchaseAccount};
use crate::store::consents::{Consent, GivenHow, Purpose, WithdrawnHow};
use crate::store::{AuditRecord, Document, FingerprintRecord, Paper, SubmitRefusal, Submitted, papers};

on_both!(
    a_voice_s_consent_is_given_with_it_replaced_with_it_and_ends_with_it,
    that_a_template_follows_is_a_consent_of_its_own,
    a_mandate_stands_and_falls_with_its_consent,
    an_account_s_consent_comes_with_its_first_purchase_and_ends_with_it,
    a_charge_that_is_refused_gives_no_consent,
    a_deleted_customer_s_consents_end_and_what_was_erased_is_in_the_audit,
    no_statement_changes_a_consent,
);

impl Bench {
    fn audit_by(&self, actor: &str, call: Option<&CallId>) -> AuditRecord {
        AuditRecord { actor: actor.into(), detail: json!({ "call": call }), ..self.audit() }
    }

    async fn enrolled(&self, customer: &CustomerId, code: u8, audit: &AuditRecord) {
        let enrolment = self.enrolment(&self.invite(customer, code).await);
        self.store.complete_enrolment(&enrolment, audit).await.unwrap();
    }

    async fn consents(&self, of: &CustomerId) -> Vec<Consent> {
        self.store.consents_of(of).await.unwrap()
    }
}

async fn a_voice_s_consent_is_given_with_it_replaced_with_it_and_ends_with_it(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let call = CallId::fresh(&*desk.entropy);
    let invite = desk.invite(&ann, 1).await;
    let mut first = desk.enrolment(&invite);
    first.call = Some(call.clone());
    let audit = desk.audit_by("call", Some(&call));
    desk.store.complete_enrolment(&first, &audit).await.unwrap();
    let [given] = &desk.consents(&ann).await[..] else { panic!() };
    assert_eq!(given.id.as_str().split_once('_').unwrap().1, audit.id.as_str().split_once('_').unwrap().1, "found by each other");
    let said = (given.purpose, given.how, given.given_at, given.text_version.as_str(), given.given_by.as_str());
    assert_eq!(said, (Purpose::Voiceprint, GivenHow::Call, Timestamp(5), "1", "the caller"));
    assert_eq!((given.call.as_ref(), given.invite.as_ref(), given.language.as_str()), (Some(&call), Some(&invite.id), "en"));
    assert_eq!((given.about.as_ref(), given.withdrawn.as_ref()), (None, None));
    assert_eq!(desk.store.consent(&given.id).await.unwrap().as_ref(), Some(given));

    desk.enrolled(&ann, 2, &desk.audit_by("api:key_1", None)).await;
    let [first, second] = &desk.consents(&ann).await[..] else { panic!() };
    assert_eq!(first.withdrawn.as_ref().map(|w| w.how), Some(WithdrawnHow::Replaced));
    assert_eq!((second.how, second.withdrawn.as_ref()), (GivenHow::Api, None));

    let call = CallId::fresh(&*desk.entropy);
    desk.store.delete_template(&ann, &desk.audit_by("call", Some(&call))).await.unwrap();
    let after = desk.consents(&ann).await;
    let ended = after[1].withdrawn.as_ref().unwrap();
    assert_eq!((ended.how, ended.call.as_ref(), ended.at), (WithdrawnHow::Call, Some(&call), Timestamp(1)));
    assert_eq!(after[0], *first, "what ended before stays as it was");
    let erased = &desk.store.audit_trail(1).await.unwrap()[0].detail["erased"];
    assert_eq!((&erased["templates"], &erased["consents_ended"]), (&json!(1), &json!(1)));
    assert!(desk.store.consent(&ConsentId::fresh(&*desk.entropy)).await.unwrap().is_none());
}

async fn that_a_template_follows_is_a_consent_of_its_own(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    desk.enrolled(&ann, 1, &desk.audit()).await;
    let of = async || {
        let all = desk.consents(&ann).await;
        let following = all.iter().filter(|c| c.purpose == Purpose::Following);
        following.map(|c| (c.given_at.0, c.withdrawn.as_ref().map(|w| w.how))).collect::<Vec<_>>()
    };
    let set = async |at| desk.store.set_following(&ann, Some(&consenting(at)), &desk.audit()).await.unwrap();
    set(7).await;
    assert_eq!(of().await, [(7, None)]);
    set(8).await;
    assert_eq!(of().await, [(7, Some(WithdrawnHow::Replaced)), (8, None)]);
    desk.store.set_following(&ann, None, &desk.audit_by("api:key_1", None)).await.unwrap();
    assert_eq!(of().await[1], (8, Some(WithdrawnHow::Api)));
    set(9).await;
    desk.store.delete_template(&ann, &desk.audit()).await.unwrap();
    assert_eq!(of().await[2], (9, Some(WithdrawnHow::Operator)), "it ends with the voice");
    assert!(desk.store.set_following(&ann, Some(&consenting(10)), &desk.audit()).await.is_err());
    assert_eq!(of().await.len(), 3, "what did not come to be was not agreed to");
}

async fn a_mandate_stands_and_falls_with_its_consent(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    let call = CallId::fresh(&*desk.entropy);
    let mandate = Mandate {
        id: MandateId::fresh(&*desk.entropy),
        customer: ann.clone(),
        card: CardId::fresh(&*desk.entropy),
        payee: PayeeId::fresh(&*desk.entropy),
        cap: Money::new(500, Currency::Usd).unwrap(),
        first: IntentId::fresh(&*desk.entropy),
        consent: Occasion::Call(call.clone()),
        wording: "w-3".into(),
        revoked_at: None,
        created_at: Timestamp(4),
        version: 0,
    };
    papers::write(&*desk.store, &mandate, &desk.audit(), &[]).await.unwrap();
    let [given] = &desk.consents(&ann).await[..] else { panic!() };
    assert_eq!((given.purpose, given.about.as_deref()), (Purpose::Mandate, Some(mandate.id.as_str())));
    assert_eq!((given.text_version.as_str(), given.call.as_ref(), given.how), ("w-3", Some(&call), GivenHow::Call));
    papers::write(&*desk.store, &mandate.revoke(Timestamp(9)), &desk.audit(), &[]).await.unwrap();
    assert_eq!(desk.consents(&ann).await[0].withdrawn.as_ref().map(|w| w.how), Some(WithdrawnHow::Operator));
}

async fn an_account_s_consent_comes_with_its_first_purchase_and_ends_with_it(desk: Bench) {
    let parties = desk.parties("111111").await;
    let ann = &parties.customer;
    let limit = Money::new(5_000, Currency::Usd).unwrap();
    let linked = |payee: &PayeeId| PurchaseAccount {
        id: AccountId::fresh(&*desk.entropy),
        customer: ann.clone(),
        main: MainAccountId::fresh(&*desk.entropy),
        payee: payee.clone(),
        limits: Limits::new(limit, limit).unwrap(),
        state: AccountState::PendingConsent,
        used: 0,
        created_at: Timestamp(3),
        version: 0,
    };
    let agreed = |how: ConfirmedBy| AccountConsent {
        wording: WORDING.version.into(),
        digest: WORDING.digest(),
        by: ann.clone(),
        how,
        at: Timestamp(4),
    };
    let about = |account: &PurchaseAccount, action: &str| AuditRecord {
        action: action.into(),
        subject: account.id.to_string(),
        ..desk.audit()
    };
    let charged = async |account: &PurchaseAccount, rows: Vec<AuditRecord>| {
        let request = desk.request_of(&parties).await;
        let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
        charge.guards.papers = vec![account.paper().unwrap()];
        charge.guards.told = rows.into_iter().map(|row| (desk.news(), row)).collect();
        let done = desk.store.submit(&charge).await.unwrap();
        assert!(matches!(done, Submitted::Fresh { .. }), "{done:?}");
    };

    let first = linked(&parties.payee);
    papers::write(&*desk.store, &first, &about(&first, "account.linked"), &[]).await.unwrap();
    assert_eq!(desk.consents(ann).await, [], "linked, and not agreed to yet");
    let used = first.use_for(limit, 0, Some(agreed(ConfirmedBy::Link))).unwrap();
    let consented = about(&used, "account.consented");
    charged(&used, vec![desk.audit(), consented.clone()]).await;
    let [given] = &desk.consents(ann).await[..] else { panic!() };
    assert_eq!((given.purpose, given.about.as_deref()), (Purpose::Account, Some(used.id.as_str())));
    assert_eq!((given.text_version.as_str(), given.given_at, given.how), (WORDING.version, Timestamp(4), GivenHow::Link));
    assert_eq!((given.given_by.as_str(), given.call.as_ref(), given.withdrawn.as_ref()), ("the customer", None, None));
    let random = |id: &str| id.split_once('_').unwrap().1.to_owned();
    assert_eq!(random(given.id.as_str()), random(consented.id.as_str()), "found by its own audit row, not by one beside it");

    let again = used.use_for(limit, 0, None).unwrap();
    charged(&again, vec![desk.audit()]).await;
    assert_eq!(desk.consents(ann).await.len(), 1, "a further purchase is no further consent");
    let closing = AuditRecord { actor: "api:key_1".into(), ..about(&again, "account.closed") };
    papers::write(&*desk.store, &again.close(Timestamp(9)), &closing, &[]).await.unwrap();
    let ended = desk.consents(ann).await.remove(0).withdrawn.unwrap();
    assert_eq!((ended.how, ended.by.as_str(), ended.at), (WithdrawnHow::Api, "api:key_1", closing.at));

    let second = linked(&PayeeId::fresh(&*desk.entropy));
    papers::write(&*desk.store, &second, &about(&second, "account.linked"), &[]).await.unwrap();
    let vouched = second.use_for(limit, 0, Some(agreed(ConfirmedBy::Api { key: "key_7".into() }))).unwrap();
    charged(&vouched, vec![about(&vouched, "account.consented")]).await;
    let given = desk.consents(ann).await.remove(1);
    assert_eq!((given.how, given.given_by.as_str(), given.withdrawn.as_ref()), (GivenHow::Api, "api:key_7", None));
    let third = linked(&PayeeId::fresh(&*desk.entropy));
    papers::write(&*desk.store, &third, &about(&third, "account.linked"), &[]).await.unwrap();
    papers::write(&*desk.store, &third.close(Timestamp(9)), &desk.audit(), &[]).await.unwrap();
    assert_eq!(desk.consents(ann).await.len(), 2, "closed without one");
}

async fn a_charge_that_is_refused_gives_no_consent(desk: Bench) {
    let parties = desk.parties("111111").await;
    let limit = Money::new(5_000, Currency::Usd).unwrap();
    let account = PurchaseAccount {
        id: AccountId::fresh(&*desk.entropy),
        customer: parties.customer.clone(),
        main: MainAccountId::fresh(&*desk.entropy),
        payee: parties.payee.clone(),
        limits: Limits::new(limit, limit).unwrap(),
        state: AccountState::PendingConsent,
        used: 0,
        created_at: Timestamp(3),
        version: 0,
    };
    papers::write(&*desk.store, &account, &desk.audit(), &[]).await.unwrap();
    let consent = AccountConsent {
        wording: WORDING.version.into(),
        digest: WORDING.digest(),
        by: parties.customer.clone(),
        how: ConfirmedBy::Link,
        at: Timestamp(4),
    };
    let used = account.use_for(limit, 0, Some(consent)).unwrap().paper().unwrap();
    let request = desk.request_of(&parties).await;
    let mut charge = desk.charge(&parties, &request, &CallId::fresh(&*desk.entropy));
    // Of two papers the second is no longer as it was read.
    charge.guards.papers = vec![used.clone(), Paper { version: 9, ..used }];
    charge.guards.told = vec![(desk.news(), desk.audit())];
    let done = desk.store.submit(&charge).await.unwrap();
    assert_eq!(done, Submitted::Refused(SubmitRefusal::ApprovalGone));
    assert_eq!(desk.consents(&parties.customer).await, []);
}

async fn a_deleted_customer_s_consents_end_and_what_was_erased_is_in_the_audit(desk: Bench) {
    let (ann, bob) = (desk.customer("+442079460958", "111111").await, desk.customer("+442079460959", "222222").await);
    for (who, code) in [(&ann, 1), (&bob, 2)] {
        desk.enrolled(who, code, &desk.audit()).await;
        let print =
            FingerprintRecord { customer: who.clone(), sealed: vec![7], heard_at: Timestamp(1), expires_at: Timestamp(99) };
        desk.store.keep_fingerprint(&print, 9).await.unwrap();
        desk.store.add_card(&desk.card(who, code), &desk.audit()).await.unwrap();
    }
    desk.store.delete_customer(&ann, &desk.audit_by("api:key_1", None)).await.unwrap();
    let erased = &desk.store.audit_trail(1).await.unwrap()[0].detail["erased"];
    for what in ["templates", "fingerprints", "telephone_numbers", "card_numbers", "consents_ended"] {
        assert_eq!(erased[what], json!(1), "{what}: {erased}");
    }
    assert_eq!(desk.consents(&ann).await[0].withdrawn.as_ref().map(|w| w.how), Some(WithdrawnHow::Api));
    assert_eq!(desk.consents(&bob).await[0].withdrawn, None);
}

async fn no_statement_changes_a_consent(desk: Bench) {
    let ann = desk.customer("+442079460958", "111111").await;
    desk.enrolled(&ann, 1, &desk.audit()).await;
    desk.enrolled(&ann, 2, &desk.audit()).await;
    for sql in [
        "UPDATE consents SET given_by = 'somebody'",
        "DELETE FROM consents",
        "UPDATE consent_withdrawals SET withdrawn_at = 0",
        "DELETE FROM consent_withdrawals",
    ] {
        assert!(desk.sql(sql).await.is_err_and(|e| e.contains("append-only")), "{sql}");
    }
}
