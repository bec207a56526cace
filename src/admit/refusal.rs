//! Short answers that read like a refusal.
//!
//! Models refuse in prose, at the beginning of a short answer, with few words. Long answers are left alone:
//! what begins with an apology and goes on may well be an answer. A refusal that is kept would be given to
//! people whom the model would have answered; one that is missed costs no more than that, and an answer that
//! is taken for a refusal costs a hit.

use std::sync::LazyLock;

use regex::RegexSet;

/// Characters of the longest answer that is looked at.
const MOST_CHARS: usize = 400;

/// How refusals begin, in lower case.
const OPENINGS: &[&str] = &[
    // English.
    concat!(
        r"^(?:(?:i'm|i am|we're) (?:really |very |so )?(?:sorry|afraid)[,.;:!]?(?: but)?,? (?:that )?",
        r"|sorry[,.!]?(?: but)?,? |unfortunately,? |my apologies[,.]?(?: but)?,? |i apologi[sz]e[,.]?(?: but)?,? ",
        r"|as an ai(?: language)?(?: model| assistant)?,? )?",
        r"i(?:'m| am)? (?:can't|cannot|can not|won't|will not|unable to|not able to|won't be able to)",
        r"(?: be able to)? (?:help(?: you)?(?: with|\.|$)|assist|comply|provide|answer|fulfil|do (?:that|this)|create|generate",
        r"|discuss|engage|continue|participate|write|produce|share|support|process)"
    ),
    r"^(?:i'm |i am |we're )?(?:really |very |so )?sorry[,.;:!]?(?: but)?,? (?:that's not something|this (?:request|goes)|i must decline)",
    r"^i (?:must|have to|need to) (?:respectfully )?(?:decline|refuse)",
    // German.
    r"^(?:(?:es )?tut mir (?:sehr )?leid|entschuldigung|leider)[,.!]? ?(?:aber )?(?:dabei |das |dazu |hier)?(?:kann|darf|werde) ich .{0,80}?(?:nicht|kein)",
    r"^(?:(?:es )?tut mir (?:sehr )?leid|entschuldigung)[,.!]? ?(?:aber )?ich (?:kann|darf|werde|bin) .{0,80}?(?:nicht|kein)",
    r"^(?:dabei|das|dazu) (?:kann|darf) ich (?:dir |ihnen )?(?:leider )?nicht",
    // French.
    r"^(?:je suis )?(?:désolée?|navrée?)[,.]? (?:mais )?je ne (?:peux|suis|pourrai)",
    r"^je ne (?:peux|suis) (?:malheureusement )?pas (?:en mesure|vous aider|t'aider|répondre|fournir|aider)",
    // Spanish.
    r"^(?:lo siento|lo lamento|lamentablemente|disculpa)[,.]? (?:pero )?no (?:puedo|podré|me es posible)",
    r"^no puedo (?:ayudar|responder|proporcionar|cumplir|asistir)",
    // Italian.
    r"^(?:mi dispiace|spiacente|purtroppo)[,.]? (?:ma )?non (?:posso|sono in grado)",
    // Portuguese.
    r"^(?:desculpe|sinto muito|lamento|infelizmente)[,.]? (?:mas )?(?:eu )?não (?:posso|consigo)",
    // Dutch.
    r"^(?:het spijt me|sorry|helaas)[,.]? (?:maar )?(?:ik kan|kan ik) .{0,60}?(?:niet|geen)",
    // Polish.
    r"^(?:przepraszam|przykro mi|niestety)[,.]? (?:ale )?nie mogę",
    // Russian.
    r"^(?:извините|простите|к сожалению|мне жаль)[,.]? (?:но )?я не (?:могу|буду)",
    // Chinese.
    r"^(?:很|非常)?(?:抱歉|对不起|對不起|遗憾)[，,。！ ]*(?:但)?(?:是)?我?(?:无法|不能|無法)",
    // Japanese.
    r"^(?:大変)?(?:申し訳(?:ありません|ございません)|すみません|恐れ入ります).{0,40}(?:できません|できかねます|いたしかねます|お答えできない)",
    // Korean.
    r"^(?:죄송|미안).{0,40}(?:수 없|드리기 어렵)",
];

static REFUSALS: LazyLock<Option<RegexSet>> = LazyLock::new(|| RegexSet::new(OPENINGS).ok());

/// Whether a text reads like a refusal.
pub(super) fn is_refusal(text: &str) -> bool {
    let text = text.trim();
    if text.chars().nth(MOST_CHARS).is_some() {
        return false;
    }
    let text = text.to_lowercase().replace(['’', 'ʼ'], "'");
    REFUSALS.as_ref().is_some_and(|set| set.is_match(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openings_compile() {
        assert!(REFUSALS.is_some());
    }

    #[test]
    fn refusals_of_many_languages_are_known() {
        for text in [
            "I'm sorry, but I can't help with that.",
            "I’m sorry, but I can’t assist with that request.",
            "Sorry, I cannot provide instructions for that.",
            "I can't help with that.",
            "I cannot fulfill this request.",
            "As an AI language model, I am unable to provide that.",
            "I'm unable to assist with this.",
            "I must decline to answer.",
            "Es tut mir leid, aber dabei kann ich nicht helfen.",
            "Tut mir leid, ich kann dir dabei nicht helfen.",
            "Dabei kann ich leider nicht helfen.",
            "Je suis désolé, mais je ne peux pas vous aider avec cela.",
            "Je ne peux pas vous aider.",
            "Lo siento, pero no puedo ayudar con eso.",
            "Mi dispiace, ma non posso aiutarti.",
            "Desculpe, mas não posso ajudar com isso.",
            "Het spijt me, maar ik kan u daar niet bij helpen.",
            "Przepraszam, ale nie mogę w tym pomóc.",
            "Извините, но я не могу помочь с этим.",
            "很抱歉，我无法提供这方面的帮助。",
            "申し訳ありませんが、そのご要望にはお応えできません。",
            "죄송하지만 그 요청은 도와드릴 수 없습니다.",
        ] {
            assert!(is_refusal(text), "{text}");
        }
    }

    #[test]
    fn answers_are_not_taken_for_refusals() {
        for text in [
            "I'm sorry to hear that. To reset your password, open Settings.",
            "I can't help but notice that the second query lacks an index.",
            "You cannot provide a password here; use a token.",
            "Sorry for the confusion: the capital of Australia is Canberra.",
            "I cannot recommend Rust highly enough.",
            "Leider ist die Funktion nicht verfügbar; nutze stattdessen den Export.",
            "Unfortunately, the store closes at six.",
            "No. The method is not thread safe.",
            "Lo siento por la espera. El pedido llega mañana.",
            "抱歉让您久等了，订单明天到达。",
            "",
        ] {
            assert!(!is_refusal(text), "{text}");
        }
        let long = format!(
            "I'm sorry, but I can't help with that. {}",
            "But then. ".repeat(50)
        );
        assert!(!is_refusal(&long));
    }
}
