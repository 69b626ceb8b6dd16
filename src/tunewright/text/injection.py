"""Text that addresses a model instead of a reader: planted instructions and the control tokens of chat templates.

The kinds are those of indirect prompt injection (Greshake et al. 2023, arXiv 2302.12173; OWASP LLM01): overrides, new
roles, requests for the system prompt, dictated output, control tokens, hidden characters. Patterns match plain
wording, whatever its characters (``disguises``); what is only implied passes.
"""

from __future__ import annotations

import re

from tunewright.text.disguises import other_readings, plain_text
from tunewright.text.foreign_overrides import foreign_override

PLANTED = "text that addresses a model"  # the rejection reason
_ZERO_WIDTH = "\u200b-\u200f\u2060-\u2064\ufeff\u180e"
_TOKENS = re.compile(
    r"<\|\s*(?:im_start|im_end|im_sep|start_header_id|end_header_id|eot_id|begin_of_text|end_of_text|endoftext|system"
    r"|user|assistant|end|channel|message|return|fim_\w+)\s*\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<｜(?:User|Assistant|begin▁of▁sentence|end▁of▁sentence)｜>"
    r"|^\s*(?:#{2,3}|\[)\s*(?:system|assistant)\s*(?:message|prompt)?\s*(?:\]|:)"
    r"|</?(?:system|system_prompt|assistant|instructions?|tool_call|tool_response|function_calls)>"
    r"|^\s*#{3}\s*instruction\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE = r"(?:above|previous|preceding|prior|earlier|former|foregoing|initial|original|existing|system|developer)"
_ORDERS = r"(?:instructions?|prompts?|directives?|directions|commands?|guidelines|guardrails|messages?|rules)"
_GAP = r"(?:\W+\w+){0,3}?\W+"  # up to three words between
_MODEL = (
    r"(?:(?:helpful |harmless |large )?(?:ai|a\.i\.|artificial intelligence)\b|(?:large )?language model|llm\b"
    r"|chat-?bot|chatgpt|gpt-?\d|assistant\b)"
)
_OVERRIDE = (
    rf"\b(?:ignore|disregard|forget)\b{_GAP}{_BEFORE}\W+(?:\w+\W+)?{_ORDERS}\b"
    r"|\b(?:override|overrule|bypass|discard|neglect)\W+(?:\w+\W+)?(?:all|any|your|the)\W+(?:\w+\W+)?"
    rf"{_BEFORE}\W+(?:instructions?|prompts?|directives?|guardrails)\b"
    rf"|\b(?:ignore|disregard|forget|override)\b{_GAP}{_ORDERS}\W+(?:\w+\W+)?(?:above|before|given (?:to )?you"
    rf"|you (?:were|have been))"
    r"|\b(?:ignore|disregard|forget)\W+(?:all|everything|anything)\W+(?:\w+\W+){0,2}(?:above|before|previously"
    r"|prior|you (?:were|have been|know))\b"
    rf"|\b(?:do not|don't|stop) (?:follow|obey)\w*{_GAP}{_BEFORE}\W+{_ORDERS}\b"
    r"|\b(?:ignore|disregard|forget) (?:all |everything |anything )?(?:of )?(?:the |what is "
    r"|what was )?(?:(?:text|content"
    r"|context|document|passage|said|written) )?(?:above|foregoing|preceding)(?: (?:text|content|context|document"
    r"|passage)"
    r")?(?: and (?!below)\w+|, (?:and )?(?:instead|just|only|now)|\s*[.!;:](?!\w)|$)"
)
_OVERRIDE += (
    rf"|\b(?:pay no attention to|set aside|put aside|skip|cancel|drop|abandon|stop (?:following"
    rf"|obeying)){_GAP}{_ORDERS}"
    r"\W+(?:that )?(?:you (?:were|have been|received)|given to you)"
    rf"|\b(?:pay no attention to|set aside|put aside)\W+(?:\w+\W+){{0,2}}?{_BEFORE}\W+{_ORDERS}\b"
    rf"|\byour {_BEFORE}\W+{_ORDERS} (?:are|is|have been|no longer) (?:now )?(?:void|cancel|revoked|invalid|overridden"
    r"|obsolete|apply|replaced|suspended)"
    rf"|\bset aside the guidance you|\b(?:do not|don't|never|stop) (?:follow|obey)\w*{_GAP}{_ORDERS} (?:above|you were)"
    r"|\bstop (?:following|obeying) your (?:\w+ )?(?:instructions|rules|guidelines|programming)"
    r"|\b(?:override|bypass|ignore|disregard|disable|forget) (?:all |any )?(?:of )?your (?:\w+ )?(?:safety|restrictions"
    r"|guardrails|programming|training|guidelines)\b"
)
_ROLE = (
    rf"\byou are (?:now |from now on |actually )?(?:an?|the|my) (?:\w+[ -]){{0,3}}?{_MODEL}"
    r"|\byou are now (?:in )?(?:\w+ )?(?:dan\b|jailbroken|unrestricted|unfiltered|uncensored|developer mode"
    r"|admin mode|free (?:from|of) (?:all|any|your))"
    r"|\b(?:pretend|act|behave|respond)\W+(?:\w+\W+){0,3}?as (?:if you (?:are|were)"
    r"|an?) (?:\w+[ -]){0,2}?(?:unrestricted|unfiltered|uncensored|jailbroken|dan\b)"
    r"|\bfrom (?:now|this point) on(?:ward)?,? (?:you|your)\b(?:\W+\w+){0,2}?\W+(?:answer|respond|reply|act"
    r"|speak|obey)\w*\b"
    r"|\bfrom (?:now|this point) on(?:ward)?,? you (?:are|will be) an? (?:\w+ )?(?:ai|assistant|chat-?bot|model|dan)\b"
    r"|\b(?:pretend to be|act as|behave as|you are) dan\b"
    r"|\byou (?:must|shall|will) (?:now |from now on |always )?(?:respond|reply|answer|speak|talk) (?:only|exclusively"
    r"|solely) (?:in|as|with|like)\b"
)
_SECRETS = (
    r"\b(?:reveal|print|show|repeat|output|leak|expose|disclose|ignore|forget|override|display|tell me|return)\b"
    r"(?:\W+\w+){0,4}?\W+(?:system|developer|hidden|initial) (?:prompt|message|instructions?)"
    r"|\b(?:your|my) (?:system|developer) (?:prompt|message|instructions?)"
    r"|\bsystem prompts?\s*[:=]|\bnew (?:system )?instructions?\s*:"
)
_DICTATED = (
    rf"\bas an? (?:\w+[ -]){{0,2}}?{_MODEL},? (?:you|please|output|print|write|answer|respond|reply|your|always"
    rf"|never|i (?:can|am|do))"
    rf"|\b(?:note|message|attention|instructions?|important|warning|hint)\b[^.\n]{{0,20}}?(?:to|for|:)\W+(?:(?:any"
    rf"|all|the)\W+)?(?:\w+\W+)?{_MODEL}s?\b(?: (?:reading|processing|summari|reviewing|training)|\s*[:,])"
    rf"|\bif you are an? (?:\w+[ -]){{0,2}}?{_MODEL}"
    r"|\b(?:dear|hey|hello|attention|hi),? (?:ai|llm|language model|chat-?bot|chatgpt|ai assistant)s?\s?[,:!]"
    rf"|\b{_MODEL}s? (?:assistants? |models? |agents? )?(?:that (?:are )?|who (?:are )?)?(?:reading|processing"
    rf"|summari[sz]ing"
    rf"|parsing|reviewing) this\b|\b(?:note|message) to (?:the |any |all )?{_MODEL}"
    r"|\b(?:when|while|if)(?: you are)? (?:summari[sz]ing|asked about|reviewing|rating|evaluating"
    r"|answering(?: questions)?"
    r"(?: about)?) (?:this|the) (?:document|text|page|article|paper|passage|file)\b[^.\n]{0,20}?\b(?:always"
    r"|only|must) (?:say"
    r"|answer|respond|reply|recommend|rate|write|mention|state)"
    r"|\bif asked (?:about this|anything)\b[^.\n]{0,30}\b(?:answer|respond|reply|say)\b"
    r"|\brepeat (?:the (?:text|words) above|everything above) (?:verbatim|word for word|exactly)"
    r"|\bignore the (?:user'?s? )?question and\b"
    r"|\b(?:your (?:reply|answer|response|output) must (?:be|contain|include|start|begin|end)\b[^.\n]{0,30}[\"'“:]"
    r"|(?:respond|reply|answer) (?:only|exclusively) with (?:the )?(?:word|phrase|text|string|following)\b)"
    r"|\b(?:do not|don't|never) (?:tell|mention|reveal|inform)\b[^.\n]{0,40}\b(?:user|these instructions"
    r"|this instruction|this prompt)\b"
)
# By language: giving up what came before, a new role, the system prompt, a dictated answer.
_OTHER_LANGUAGES = (
    # German
    r"\b(?:ignorier\w*|missachte\w*|vergiss|vergessen sie)\b[^.\n]{0,30}\b(?:anweisung|instruktion|vorgabe|befehl"
    r"|regel)\w*"
    r"|\b(?:ignoriere?n?|missachten?|vergiss|vergessen)(?: sie)? (?:das|alles|den)\b[^.\n]{0,12}\b(?:obige|oben"
    r"|bisherige"
    r"|vorherige|vorstehende|davor)\w*"
    r"|\b(?:du bist|sie sind) (?:jetzt|nun|ab jetzt|ab sofort) (?:ein\w* )?(?:\w+ )?(?:ki|assistent\w*"
    r"|sprachmodell|chatbot|dan)\b"
    r"|\b(?:zeig\w*|verrate?\w*|gib|geben sie|nenne?\w*|wiederhol\w*)\b[^.\n]{0,30}\bsystem-?\s?(?:prompt"
    r"|anweisung)\w*"
    r"|\bneue (?:system)?anweisung(?:en)?\s*:|\bantworte(?:n sie)? (?:nur|ausschließlich|immer) mit\b"
    # French
    r"|\b(?:ignore[zrs]?|oublie[zrs]?|ne tiens? pas compte|ne tenez pas compte)\b[^.\n]{0,30}\b(?:instructions?"
    r"|consignes?|règles)\b[^.\n]{0,15}\b(?:pr[ée]c[ée]dent|ant[ée]rieur|ci-dessus|donn[ée])"
    r"|\b(?:ignore[zrs]?|oublie[zrs]?)\b[^.\n]{0,20}\b(?:ce qui précède|le texte ci-dessus|tout ce qui est ci-dessus)"
    r"|\b(?:tu es|vous êtes) (?:maintenant|désormais) (?:une? )?(?:\w+ )?(?:ia\b|assistante?\b|modèle de langage"
    r"|chatbot)"
    r"|\b(?:révèle[zr]?|affiche[zr]?|montre[zr]?|répète[zr]?|donne[zr]?)\b[^.\n]{0,30}\b(?:prompt|invite"
    r"|message) syst[èe]me"
    r"|\bnouvelles (?:instructions|consignes)\s*:|\bréponde?[zs] (?:uniquement|seulement|toujours) (?:par|avec)\b"
    # Spanish and Portuguese
    r"|\b(?:ignor[ae]|ignore[ns]?|olvid[ae]|olvide[ns]?|esque[çc]a|desconsider[ea])\b[^.\n]{0,30}\b(?:instru(?:cc"
    r"|ç)(?:iones"
    r"|ión|ões|ão)|[óo]rdenes|ordens|indicaciones|reglas|regras)\b[^.\n]{0,15}\b(?:anterior|previ|acima|arriba)"
    r"|\b(?:ignor[ae]|olvid[ae]|esque[çc]a|desconsidere)\b[^.\n]{0,16}\b(?:lo anterior|todo lo de arriba"
    r"|texto anterior"
    r"|o texto acima|tudo acima|tudo o que está acima|o que foi dito acima)"
    r"|\b(?:ahora eres|agora você é|a partir de ahora eres|a partir de agora você é) (?:una? |uma? )?(?:\w+ )?(?:ia\b"
    r"|asistente|assistente|modelo de (?:lenguaje|linguagem)|chatbot)"
    r"|\b(?:revela|muestra|imprime|repite|revele|mostre|imprima|repita|exiba)\b[^.\n]{0,30}\b(?:prompt|mensaje"
    r"|mensagem"
    r"|instrucciones|instruções) d(?:el|o) sistema"
    r"|\b(?:nuevas instrucciones|novas instruções)\s*:"
    r"|(?:^|[.!?:;] )(?:responde|responda) (?:s[óo]lo|solamente|únicamente"
    r"|somente"
    r"|apenas|siempre|sempre) con?m?\b"
    # Italian
    r"|\b(?:ignora|dimentica)(?:te|re)?\b[^.\n]{0,30}\b(?:istruzioni|regole)\b[^.\n]{0,15}\b(?:precedent|sopra)"
    r"|\b(?:ignora|dimentica)(?:te)?\b[^.\n]{0,16}\b(?:quanto sopra|il testo precedente|tutto ciò che precede)"
    r"|\bora sei (?:un['’]? ?|una )?(?:\w+ )?(?:ia\b|assistente|modello linguistico|chatbot)"
    r"|\b(?:rivela|mostra|stampa|ripeti)(?:te)?\b[^.\n]{0,30}\b(?:prompt|messaggio|istruzioni) (?:di|del) sistema"
    r"|\bnuove istruzioni\s*:|\brispondi(?:te)? (?:solo|soltanto|sempre) con\b"
    # Dutch and Polish
    r"|\b(?:negeer|vergeet)\b[^.\n]{0,30}\b(?:instructies|aanwijzingen|regels)\b|\bnegeer (?:het|al het) bovenstaande"
    r"|\b(?:zignoruj|ignoruj|zapomnij)\w*[^.\n]{0,30}\b(?:instrukcj|polece|zasad)\w*|\bzignoruj (?:powyższe"
    r"|wszystko powyżej)"
    # Russian
    r"|игнорируй\w*[^.\n]{0,30}(?:инструкци|указани|вышесказанн|вышеизложенн|предыдущ|текст выше)"
    r"|забудь\w*[^.\n]{0,20}(?:инструкци|указани|всё,? что (?:было )?(?:выше|раньше))"
    r"|теперь ты[^.\n]{0,20}(?:ии\b|ассистент|помощник|языковая модель|чат-?бот)"
    r"|(?:покажи|раскрой|выведи|повтори)\w*[^.\n]{0,30}системн\w+ (?:промпт|сообщени|инструкци|подсказк)"
    r"|новые (?:инструкции|указания)\s*:|отвечай(?:те)? только\b"
    # Chinese and Japanese
    r"|(?:忽略|无视|忘记)[^。\n]{0,8}(?:之前|以上|前面|先前|上述|上面)[^。\n]{0,8}(?:指令|指示|说明|提示|内容|规则|所有)"
    r"|(?:忽略|无视|忘记)(?:以上|上述|上面)(?:内容|全部|一切)?(?:[。！,，]|$)|你现在是[^。\n]{0,10}(?:助手|人工智能|模型|ai)"
    r"|(?:显示|输出|透露|重复|告诉我)[^。\n]{0,10}(?:系统提示|系统指令|系统消息)|新(?:的)?指令[:：]|只(?:能)?(?:回答|回复|输出)[“\"「:：]"
    r"|(?:以前|前|上記|これまで)の(?:すべての)?(?:指示|命令|内容|文章|ルール)[^。\n]{0,6}(?:無視|忘れ)"
    r"|上記を?(?:すべて)?無視|あなたは今から[^。\n]{0,14}(?:アシスタント|ai|モデル|です)"
    r"|システムプロンプトを[^。\n]{0,8}(?:表示|出力|教え|公開)|新しい(?:指示|命令)[:：]|[」』\"]とだけ(?:答え|回答|出力)"
    # Arabic and Hindi
    r"|تجاهل[^.\n]{0,20}(?:التعليمات|الأوامر|ما سبق|ما ورد أعلاه)|أنت الآن[^.\n]{0,15}(?:مساعد|ذكاء اصطناعي|نموذج)"
    r"|पिछले[^।\n]{0,12}(?:निर्देश|आदेश)\w*[^।\n]{0,12}(?:अनदेखा|नज़रअंदाज़|भूल)"
    r"|(?:निर्देशों|आदेशों)[^।\n]{0,12}(?:अनदेखा|नज़रअंदाज़)"
)
_VERBS = (
    "pay no",
    "aside",
    "skip",
    "cancel",
    "drop",
    "abandon",
    "stop",
    "disable",
    "your ",
    "ignore",
    "disregard",
    "forget",
    "override",
    "overrule",
    "bypass",
    "discard",
    "neglect",
    "obey",
    "not follow",
)
_MODELS = (
    "ai ",
    " ai:",
    " ai,",
    " ai!",
    "a.i.",
    "artificial intell",
    "language model",
    "llm",
    "chatbot",
    "chat-bot",
    "gpt",
)
_PROMPTS = ("prompt", "instruct", "message")
_FOREIGN = (
    *(
        "missacht",
        "vergiss",
        "vergessen",
        "ignor",
        "oubli",
        "tiens",
        "tenez",
        "olvid",
        "esque",
        "desconsid",
        "dimentic",
    ),
    *(
        "negeer",
        "vergeet",
        "zapomnij",
        "du bist",
        "sie sind",
        "tu es",
        "vous êtes",
        "ahora eres",
        "agora você",
        "ora sei",
    ),
    *(
        "system",
        "systè",
        "sistema",
        "anweisung",
        "instructions",
        "consignes",
        "instrucciones",
        "instruções",
        "istruzioni",
    ),
    *("antworte", "répond", "responde", "responda", "rispondi"),
    *(
        "игнорир",
        "забудь",
        "теперь ты",
        "системн",
        "новые ",
        "отвечай",
        "忽略",
        "无视",
        "忘记",
        "你现在",
        "系统",
        "指令",
        "只",
    ),
    *("無視", "忘れ", "今から", "システム", "新しい", "とだけ", "تجاهل", "أنت الآن", "अनदेखा", "नज़रअंदाज़", "भूल"),
)
# The pattern of each kind, with words of which a matching text holds at least one: they are far cheaper to search for.
_KINDS: dict[str, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "overrides instructions": ((*_VERBS, "n't follow", "stop follow"), re.compile(_OVERRIDE)),
    "gives the model a role": (
        (
            "you are",
            "you must",
            "you shall",
            "you will",
            "pretend",
            "act as",
            "behave",
            "respond",
            "from now",
            "this point",
        ),
        re.compile(_ROLE),
    ),
    "reaches for the system prompt": (_PROMPTS, re.compile(_SECRETS)),
    "dictates an output": (
        (
            *_MODELS,
            "assistant",
            "your ",
            "respond",
            "reply",
            "answer",
            "user",
            "prompt",
            " this",
            " the ",
            "everything",
        ),
        re.compile(_DICTATED),
    ),
    "overrides instructions in another language": (
        _FOREIGN,
        re.compile(_OTHER_LANGUAGES),
    ),
}
# Invisible characters that prose does not need can carry hidden sentences: tags (from U+E0000) outside of a flag,
# variation selectors behind letters, many of them or of zero width.
_FLAG = re.compile("\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f")
_INVISIBLE = re.compile(
    f"[\U000e0001-\U000e007f]|[\ufe00-\ufe0f\U000e0100-\U000e01ef]{{4,}}|[{_ZERO_WIDTH}]{{6,}}"
    f"|(?:[A-Za-z][\ufe00-\ufe0f\U000e0100-\U000e01ef][^\ufe00-\ufe0f\U000e0100-\U000e01ef]{{0,40}}){{4,}}"
)
# In a text whose letters stand apart, or which has no gaps.
_CONDENSED = re.compile(
    r"(?:ignore|disregard|forget|override)(?:all|any|the|your|of|every|these|my)*(?:previous|prior|above"
    r"|earlier|preceding"
    r"|foregoing|initial|original|system)(?:system)?(?:instruction|prompt|directive|guideline|rule|command|message)"
)
_LONG_WORD = re.compile(r"(?:ignor|disreg|forget|overrid)\S{20,400}")
# A word of each pattern that a disguise may hide; what brings none of them says nothing else than it seems to say.
_DISGUISED = (
    "ignor",
    "disreg",
    "forget",
    "overrid",
    "instruct",
    "prompt",
    "you are",
    "respond",
    "reply",
    "answer",
    "system",
)
# A line or sentence that pretends to come from the system.
_SYSTEM_LINE = re.compile(
    r"(?:^|[.!?。]\s*|[\n\"'“(\[*_>-]\s*)(?:SYSTEM|SYSTÈME|SISTEMA|СИСТЕМА)(?: [A-ZÀ-ÜА-Я]{4,14})?[*_]*\s*[:\]：]"
    r"|(?:^\W{0,3}|[.!?]\s+)[Ss]ystem(?: (?:message|prompt|note|override|notice|update|command|instruction))?"
    r"\s?[*_]*:[^\n]{0,80}?\b(?:you|your|ignore|disregard|forget|respond|reply|answer|output|print|reveal"
    r"|always|never)\b"
    r"|(?:^\W{0,3}|[.!?。]\s*)(?:系统(?:提示|消息|指令)?|システム(?:メッセージ|プロンプト)?)\s?[:：]",
    re.MULTILINE,
)


def control_token(text: str) -> str | None:
    """Return the first token in a text that a chat template could take for the start or end of a turn, or None."""
    match = _TOKENS.search(text) if "<" in text or "[" in text or "##" in text else None
    return match.group().strip() if match else None


def injection_fault(text: str) -> str | None:
    """Return how a text addresses a model, with the matching words, or None.

    Args:
        text: a passage, a question or an answer.
    """
    token = control_token(text)
    if token:
        return f"control token: {token}"
    if not text.isascii() and _INVISIBLE.search(_FLAG.sub("", text)):
        return "hidden characters"
    may_be_system = "yst" in text or "YST" in text or "SISTEMA" in text or not text.isascii()
    if match := _SYSTEM_LINE.search(text) if may_be_system else None:
        return f"pretends to be the system: {match.group().strip()[:80]}"
    plain = plain_text(text)
    if fault := _fault(plain):
        return fault
    if words := foreign_override(plain):
        return f"overrides instructions in another language: {words[:80]}"
    if fault := _condensed_fault(plain):
        return fault
    for reading in other_readings(text, plain):
        brings_words = any(word in reading and reading.count(word) > plain.count(word) for word in _DISGUISED)
        if brings_words and (fault := _fault(reading) or _condensed_fault(reading)):
            return f"in disguise, {fault}"
    return None


def _fault(plain: str) -> str:
    for kind, (hints, pattern) in _KINDS.items():
        for hint in hints:  # a loop of its own takes half the time of any(), and most texts are looked at for all hints
            if hint in plain:
                if match := pattern.search(plain):
                    return f"{kind}: {match.group()[:80]}"
                break
    return ""


def _condensed_fault(reading: str) -> str:
    for word in _LONG_WORD.findall(reading):
        if match := _CONDENSED.search(re.sub(r"[\W_]+", "", word)):
            return f"overrides instructions: {match.group()[:80]}"
    return ""
