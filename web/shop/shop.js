// The demo's shop. Its back end makes the payment request and asks Voicepay for a token; the page gets just the token. So must yours: API keys stay on servers.

import "/shop/voicepay-confirm.js";

const WORDS = {
  en: {
    title: "Bills to pay", intro: "Choose a bill and confirm it with your voice. Nobody is charged: this is a demonstration.", bill: "Bill", language: "Language", pay: "Pay by voice",
    failed: "The shop could not prepare this payment. Please try again.", done: "Thank you. The bill is paid.", undone: "The bill is still open.", unknown: "Please wait: whether it is paid will be told on your orders.",
  },
  zh: {
    title: "待付账单", intro: "请选择账单，并用您的声音确认。这是演示，不会真的扣款。", bill: "账单", language: "语言", pay: "语音付款",
    failed: "商店无法准备这笔付款。请再试一次。", done: "谢谢。账单已付。", undone: "账单还没有付。", unknown: "请稍候：是否已付会显示在您的订单里。",
  },
};

const form = /** @type {HTMLFormElement} */ (document.getElementById("bills"));
const told = /** @type {HTMLElement} */ (document.getElementById("told"));
const place = /** @type {HTMLElement} */ (document.getElementById("confirm"));

/** @returns {"en" | "zh"} */
const language = () => (new FormData(form).get("language") === "zh" ? "zh" : "en");

function speak() {
  const words = WORDS[language()];
  document.documentElement.lang = language();
  document.title = words.title;
  for (const element of document.querySelectorAll("[data-words]")) {
    const key = element.getAttribute("data-words");
    if (key && key in words) element.textContent = words[/** @type {keyof typeof words} */ (key)];
  }
}

form.addEventListener("change", speak);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  told.textContent = "";
  place.replaceChildren();
  const words = WORDS[language()];
  try {
    const response = await fetch("/shop/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ item: new FormData(form).get("item"), language: language() }),
    });
    if (!response.ok) throw new Error(`the shop answered ${response.status}`);
    const { token } = await response.json();
    const confirm = document.createElement("voicepay-confirm");
    confirm.lang = language();
    // A property, not an attribute: the token stays out of the document.
    confirm.token = token;
    confirm.addEventListener("voicepay-result", ({ detail }) => {
      // A real shop asks its back end here, which was told by webhook: what a page says is no proof of a payment.
      told.textContent = detail.result === "paid" ? words.done : detail.fault === "lost" || detail.fault === "used" ? words.unknown : words.undone;
    });
    place.append(confirm);
  } catch {
    told.textContent = words.failed;
  }
});
