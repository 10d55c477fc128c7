//! Consents: given with what they allow, ended with it, and never changed.

use serde_json::json;

use super::{Bench, consenting, on_both};
use crate::clock::Timestamp;
use crate::ids::{CallId, CardId, ConsentId, CustomerId, IntentId, MandateId, PayeeId};
use crate::money::{Currency, Money};
use crate::payment::{Mandate, Occasion};
use crate::store::consents::{Consent, GivenHow, Purpose, WithdrawnHow};
use crate::store::{AuditRecord, FingerprintRecord, papers};

on_both!(
    a_voice_s_consent_is_given_with_it_replaced_with_it_and_ends_with_it,
    that_a_template_follows_is_a_consent_of_its_own,
    a_mandate_stands_and_falls_with_its_consent,
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
