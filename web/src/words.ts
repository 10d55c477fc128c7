// Every word that the component itself shows, in its two languages. What is said in the call is the service's.
// Nothing is promised that only the service can know; a user who can do something is told what.

import type { VoicepayFault, VoicepayLanguage, VoicepayOutcome, VoicepayState } from "./types.js";

/** A fault in two sentences: what it is, and what to do. */
type FaultWords = readonly [what: string, then: string];

export interface Words {
  readonly title: string;
  readonly payee: string;
  readonly amount: string;
  readonly start: string;
  readonly again: string;
  readonly stop: string;
  readonly soundOn: string;
  readonly sayThese: string;
  readonly microphone: string;
  readonly muted: string;
  readonly captions: string;
  readonly service: string;
  readonly you: string;
  readonly spoke: string;
  readonly keypad: string;
  readonly star: string;
  readonly hash: string;
  readonly reference: string;
  readonly states: Readonly<Record<Exclude<VoicepayState, "blocked" | "over">, string>>;
  readonly outcomes: Readonly<Record<VoicepayOutcome, string>>;
  readonly faults: Readonly<Record<VoicepayFault, FaultWords>>;
}

const EN: Words = {
  title: "Confirm by voice",
  payee: "To",
  amount: "Amount",
  start: "Start",
  again: "Try again",
  stop: "Stop",
  soundOn: "Turn the sound on",
  sayThese: "Say these digits",
  microphone: "Your microphone",
  muted: "Nothing comes from your microphone. Is it muted?",
  captions: "What is said",
  service: "Voicepay",
  you: "You",
  spoke: "(spoke)",
  keypad: "Keypad",
  star: "star",
  hash: "hash",
  reference: "Reference",
  states: {
    loading: "One moment …",
    ready: "Find a quiet place, press Start and allow the microphone. You will hear a question; answer it aloud.",
    asking: "Please allow the microphone, in the question that your browser shows.",
    connecting: "Connecting …",
    prompting: "Please listen",
    listening: "Speak now",
    thinking: "One moment …",
    reconnecting: "The connection was lost. Connecting again …",
  },
  outcomes: {
    paid: "Paid",
    refused: "Not confirmed",
    declined: "Declined",
    waiting: "Waiting for somebody else",
    cancelled: "Stopped",
    failed: "Not completed",
  },
  faults: {
    "mic-refused": ["The microphone is not allowed.", "Allow it for this page in your browser’s settings (beside the address), then try again."],
    "mic-missing": ["There is no microphone.", "Connect one, or use another device, then try again."],
    "mic-busy": ["The microphone gives no sound.", "Close other programs that use it, or connect it again, then try again."],
    "mic-lost": ["The microphone went away.", "Look at your order before you pay again: it may be paid."],
    insecure: ["This page is not secure.", "Voice needs an address that begins with https. Nothing was charged."],
    unsupported: ["This browser can’t make voice calls.", "Use a current Chrome, Edge, Firefox or Safari, or pay in another way. Nothing was charged."],
    unreachable: ["The payment service can’t be reached.", "Check your network, then try again. Nothing was charged."],
    busy: ["The payment service is busy.", "Wait a minute, then try again. Nothing was charged."],
    expired: ["This payment waited for too long.", "Go back and start it again. Nothing was charged here."],
    used: ["This payment was already begun.", "Look at your order before you pay again: it may be paid."],
    "wrong-origin": ["This page may not ask for this payment.", "Don’t pay here. Go back to the shop by its own address. Nothing was charged."],
    rejected: ["The payment service does not understand this browser.", "Use another browser, or pay in another way. Nothing was charged."],
    "no-media": ["No sound gets through.", "A firewall or VPN may be in the way. Try another network, and start the payment again."],
    lost: ["The connection was lost.", "Look at your order before you pay again: it may be paid."],
    service: ["Something is wrong with the payment service.", "Try again later, or pay in another way."],
    setup: ["This page is not set up for payment by voice.", "Tell the shop, or pay in another way. Nothing was charged."],
  },
};

const ZH: Words = {
  title: "语音确认付款",
  payee: "收款方",
  amount: "金额",
  start: "开始",
  again: "再试一次",
  stop: "停止",
  soundOn: "打开声音",
  sayThese: "请念出这些数字",
  microphone: "您的麦克风",
  muted: "麦克风没有声音。是不是静音了？",
  captions: "通话字幕",
  service: "Voicepay",
  you: "您",
  spoke: "（已说话）",
  keypad: "按键",
  star: "星号",
  hash: "井号",
  reference: "参考号",
  states: {
    loading: "请稍等……",
    ready: "请在安静的地方，按“开始”，并允许使用麦克风。听到问题后，请大声回答。",
    asking: "请在浏览器的询问中允许使用麦克风。",
    connecting: "正在连接……",
    prompting: "请听",
    listening: "请说话",
    thinking: "请稍等……",
    reconnecting: "连接中断，正在重新连接……",
  },
  outcomes: {
    paid: "付款成功",
    refused: "未能确认",
    declined: "未获批准",
    waiting: "等待他人同意",
    cancelled: "已停止",
    failed: "没有完成",
  },
  faults: {
    "mic-refused": ["没有获准使用麦克风。", "请在浏览器设置（地址栏旁边）中允许本页使用麦克风，然后再试一次。"],
    "mic-missing": ["没有找到麦克风。", "请连接麦克风，或者换一台设备，然后再试一次。"],
    "mic-busy": ["麦克风没有声音。", "请关闭其他正在使用麦克风的程序，或者重新连接麦克风，然后再试一次。"],
    "mic-lost": ["麦克风已断开。", "再次付款之前，请先查看您的订单：可能已经付款。"],
    insecure: ["本页面不安全。", "语音需要以 https 开头的网址。没有扣款。"],
    unsupported: ["此浏览器不能进行语音通话。", "请使用新版的 Chrome、Edge、Firefox 或 Safari，或者用其他方式付款。没有扣款。"],
    unreachable: ["无法连接付款服务。", "请检查网络，然后再试一次。没有扣款。"],
    busy: ["付款服务正忙。", "请等一分钟再试。没有扣款。"],
    expired: ["这笔付款等待太久，已经失效。", "请返回并重新开始。这里没有扣款。"],
    used: ["这笔付款已经开始过。", "再次付款之前，请先查看您的订单：可能已经付款。"],
    "wrong-origin": ["本页面无权请求这笔付款。", "请不要在这里付款。请从商店自己的网址进入。没有扣款。"],
    rejected: ["付款服务不支持此浏览器。", "请换一个浏览器，或者用其他方式付款。没有扣款。"],
    "no-media": ["声音无法传送。", "可能被防火墙或 VPN 阻挡。请换一个网络，然后重新开始付款。"],
    lost: ["连接已中断。", "再次付款之前，请先查看您的订单：可能已经付款。"],
    service: ["付款服务出了问题。", "请稍后再试，或者用其他方式付款。"],
    setup: ["本页面没有设置好语音付款。", "请告诉商店，或者用其他方式付款。没有扣款。"],
  },
};

/** Words of a language. */
export function wordsIn(language: VoicepayLanguage): Words {
  return language === "zh" ? ZH : EN;
}

/** The first of the tags that the component speaks (`zh-Hant-TW` → `zh`), else English. */
export function languageOf(...tags: readonly (string | null | undefined)[]): VoicepayLanguage {
  for (const tag of tags) {
    const base = tag?.toLowerCase().split(/[-_]/)[0];
    if (base === "en" || base === "zh") return base;
  }
  return "en";
}
