//! What the pages say, in each language beside the other, and which language a reader gets.

use axum::http::{HeaderMap, header};

use crate::language::Language;
use crate::listen::one_header;
use crate::payment::Role;

/// Languages of a reader's browser that are looked at.
const LIMIT_TAGS: usize = 32;

macro_rules! lines {
    ($($(#[$doc:meta])* $name:ident: $english:literal / $mandarin:literal,)+) => {
        /// A line of a page.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Line {
            $($(#[$doc])* $name,)+
        }

        impl Line {
            /// As it is written in a language.
            pub(super) fn text(self, language: Language) -> &'static str {
                let (english, mandarin) = match self {
                    $(Self::$name => ($english, $mandarin),)+
                };
                match language {
                    Language::English => english,
                    Language::Mandarin => mandarin,
                }
            }
        }
    };
}

lines! {
    ApprovalTitle: "You are asked to agree to a payment" / "请您同意一笔付款",
    PurchaseTitle: "Confirm your payment" / "请确认您的付款",
    Title: "Payment" / "付款",
    Payee: "Who gets it" / "收款方",
    Amount: "How much" / "金额",
    Payer: "Who pays" / "付款人",
    AlsoAsked: "Asked after your yes" / "您确认后还将询问",
    AskedAs: "You are asked as" / "您的身份",
    For: "What for" / "用途",
    Bill: "a bill or a service" / "账单或服务",
    Goods: "goods that are delivered" / "需配送的商品",
    Due: "Due" / "到期日",
    Reference: "Reference" / "参考号",
    Until: "Answer by" / "请在此时间前答复",
    LimitPurchase: "Most for one purchase" / "单笔限额",
    LimitDay: "Most in 24 hours" / "24 小时限额",
    Guardian: "guardian" / "监护人",
    SecondGuardian: "second guardian" / "第二监护人",
    Supervisor: "supervisor" / "监督人",
    Wording: "What you agree to" / "您所同意的内容",
    /// Stands before [`Line::WordingTranslated`]; no text in the language of the wording itself needs one.
    WordingIs: "" / "以英文原文为准，译文仅供参考：",
    WordingTranslated: "" / "我允许该收款方请求从我的主账户付款。每笔付款都须经我确认后才会进行，且不超过此处所示限额。我可以随时撤回此许可；撤回之前已确认的付款仍然有效。",
    IAgree: "I agree to this" / "我同意以上内容",
    Code: "One-time code" / "一次性验证码",
    CodeHint: "6 digits, from the message that we sent you" / "6 位数字，见我们发送给您的消息",
    SendCode: "Send me a code" / "发送验证码",
    YesApproval: "Yes, it may be paid" / "同意付款",
    NoApproval: "No, it may not" / "不同意",
    YesPurchase: "Yes, pay" / "确认付款",
    NoPurchase: "No, don't pay" / "不付款",

    SaidYes: "You have said yes. Others still have to answer." / "您已同意，尚需等待其他人答复。",
    SaidYesPayer: "You have said yes. The payer has not confirmed the payment yet." / "您已同意，付款人尚未确认。",
    AllAgreed: "Everybody agreed. The payment is on its way." / "所有人都已同意，付款正在进行。",
    SaidNo: "You have said no. This will not be paid." / "您已拒绝，这笔款项不会支付。",
    WaitsForOthers: "You have said yes. Others have to agree, and are asked now. Nothing is paid before they all did." / "您已确认。其他人须先同意，现正征询其意见；在所有人同意之前不会付款。",
    Paid: "Paid." / "已付款。",
    Charging: "Your yes is noted. The bank has not answered yet; the payee will be told." / "已收到您的确认，银行尚未答复，结果将告知收款方。",
    InDoubt: "Your yes is noted. The bank's answer did not come; it is being asked what became of the payment. Don't pay again." / "已收到您的确认，但银行没有答复，正在查询付款结果。请勿重复付款。",
    Declined: "The bank declined the payment. Nothing was taken." / "银行拒绝了这笔付款，未扣款。",
    Reversed: "The payment was made, and taken back by the bank." / "付款已完成，但已被银行撤回。",
    PurchaseRefused: "You have said no. Nothing will be paid." / "您已拒绝，不会付款。",
    CodeSent: "A code is on its way to you." / "验证码正在发送给您。",

    Forged: "This link is not valid. Open it exactly as it was sent to you." / "此链接无效。请按收到的原样打开。",
    TooOften: "Too many links that are not valid came from your address. Try again later." / "来自您地址的无效链接过多，请稍后再试。",
    LinkTooOften: "This link was opened too often in a short time. Try again in a moment." / "此链接短时间内打开次数过多，请稍后再试。",
    Expired: "The time to answer is over. Nothing will be paid by this link." / "答复时间已过，此链接不会再产生付款。",
    NotAsked: "You are not asked about this payment." / "这笔付款不需要您答复。",
    Blocked: "Your account is blocked, so that you can't answer here." / "您的账户已被冻结，无法在此答复。",
    Answered: "You have answered already, and otherwise. Your first answer stands." / "您已作过不同的答复，以第一次答复为准。",
    Used: "This was agreed to and has been paid, or is being paid. Nothing can be answered any more." / "此项已获同意并已付款或正在付款，无法再答复。",
    Denied: "Somebody who was asked said no. This will not be paid." / "有人已拒绝，这笔款项不会支付。",
    Cancelled: "This was taken back. Nothing will be paid." / "此项已撤销，不会付款。",
    Withdrawn: "Somebody who had to agree is not asked any more, so that this has ended. Nothing will be paid." / "须同意者已被撤销，此项已结束，不会付款。",
    RefusedByRules: "Everybody agreed, but the rules refuse this payment now. Nothing will be paid." / "所有人都已同意，但规则现不允许这笔付款，不会付款。",
    Refused: "The rules refuse this payment now. Nothing was paid." / "规则现不允许这笔付款，未付款。",
    CannotBePaid: "This can't be paid any more. Nothing was paid." / "此项已无法支付，未付款。",
    OverLimit: "This is above the limit of your account. Nothing was paid." / "超出您的账户限额，未付款。",
    NoAccount: "The account that was to pay is closed. Nothing was paid." / "付款账户已关闭，未付款。",
    NeedsConsent: "Nothing was paid yet: to pay, agree to the text below." / "尚未付款：请先同意下面的内容。",
    NeedsCode: "Nothing was paid yet: enter the code that we sent you." / "尚未付款：请输入我们发送给您的验证码。",
    WrongCode: "The code is wrong. Nothing was paid. Tries left:" / "验证码错误，未付款。剩余次数：",
    DeadCode: "This code can't be used any more. Nothing was paid. Have another one sent to you." / "此验证码已失效，未付款。请重新获取。",
    CodeShape: "A code has 6 digits. Nothing was paid." / "验证码为 6 位数字，未付款。",
    TooManyCodes: "Too many codes were sent for this payment. Try again in an hour." / "为这笔付款发送的验证码过多，请一小时后再试。",
    BadForm: "This could not be read as an answer. Open the link again and use its buttons." / "无法读取您的答复。请重新打开链接并使用页面上的按钮。",
    BadKind: "Answers come from the form of the page and in no other way." / "只能通过页面上的表单答复。",
    TooLong: "This is longer than any answer. Nothing was changed." / "内容过长，未作任何更改。",
    TooSlow: "The answer did not come in time. Nothing was changed." / "答复未及时送达，未作任何更改。",
    Unavailable: "The service is out of order. Try again in a moment: an answer that was given counts once." / "服务暂时不可用，请稍后再试；同一答复只计一次。",
    Failed: "Something failed here. Try again later: an answer that was given counts once." / "系统出错，请稍后再试；同一答复只计一次。",
    Busy: "Somebody else answered at the same moment. Try again." / "有人同时答复，请再试一次。",
}

impl From<Role> for Line {
    fn from(role: Role) -> Self {
        match role {
            Role::Guardian => Self::Guardian,
            Role::SecondGuardian => Self::SecondGuardian,
            Role::Supervisor => Self::Supervisor,
        }
    }
}

/// The language that a reader's browser asks for, of those that we have (RFC 9110 §12.5.4); the first of those that are wanted most.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Language> {
    let mut best: Option<(Language, f32)> = None;
    for part in one_header(headers, header::ACCEPT_LANGUAGE.as_str())?.split(',').take(LIMIT_TAGS) {
        let mut fields = part.split(';').map(str::trim);
        let tag = fields.next().unwrap_or("").to_ascii_lowercase();
        let Some(language) = tag.split('-').next().and_then(Language::from_code) else { continue };
        let weight = fields.find_map(|f| f.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f32>().ok());
        let Some(weight) = weight.filter(|w| *w > 0.0 && *w <= 1.0) else { continue };
        if best.is_none_or(|(_, most)| weight > most) {
            best = Some((language, weight));
        }
    }
    best.map(|(language, _)| language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_that_is_wanted_most_is_taken() {
        let of = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_LANGUAGE, value.parse().unwrap());
            wanted(&headers)
        };
        for (value, language) in [
            ("en", Some(Language::English)),
            ("zh-CN,zh;q=0.9,en;q=0.8", Some(Language::Mandarin)),
            ("de, en-GB;q=0.7, zh;q=0.8", Some(Language::Mandarin)),
            ("ZH-hant", Some(Language::Mandarin)),
            ("fr", None),
            ("zh;q=0", None),
            ("zh;q=2, en;q=x, *", None),
            ("", None),
        ] {
            assert_eq!(of(value), language, "{value}");
        }
        assert_eq!(wanted(&HeaderMap::new()), None);
    }
}
