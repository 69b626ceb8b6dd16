"""Orders to give up earlier instructions, by language: a verb, what is given up, and that it came before."""

from __future__ import annotations

import re
import unicodedata

# Of each language the beginnings of the verbs (ignore, forget), of the nouns (instruction, order, rule), and of the
# words for all of them, or for those before or above. A sentence with one of each counts.
_WORDS = {
    "af": ("ignoreer|vergeet|verontagsaam", "instruksie|opdrag|reël", "vorige|alle|bogenoemde|eerder"),
    "sq": ("injoro|harro|shpërfill", "udhëzim|instruksion|urdhr", "mëparsh|gjitha|sipër"),
    "hy": ("անտես|մոռաց", "հրահանգ|ցուցում", "նախորդ|բոլոր|վերև"),
    "az": ("nəzərə alma|unut|məhəl qoyma", "təlimat|göstəriş|əmr", "əvvəlki|bütün|yuxarıda"),
    "eu": ("ez ikusi egin|ahaztu|alde batera utzi", "jarraibide|agindu|argibide", "aurreko|guzti|goiko"),
    "bn": ("উপেক্ষা|ভুলে যা|অগ্রাহ্য", "নির্দেশ|আদেশ", "পূর্ব|আগের|সমস্ত|সব|উপরের"),
    "bg": ("игнорирай|пренебрегни|забрави", "инструкци|указани|нареждани", "предишн|предходн|всички|горни"),
    "ca": (
        "ignora|oblida|desestima|fes cas omís",
        "instruccion|ordre|indicacion|regles",
        "anterior|prèvi|totes|tots|dalt",
    ),
    "hr": (
        "zanemari|ignorira|ignoriši|zaboravi",
        "uputstv|upute|uputa|instrukcij|nalog|pravil",
        "prethodn|ranij|sve |svih|gore",
    ),
    "cs": ("ignoruj|zapome[nň]|nevšímej|přehlíž", "pokyn|instrukc|příkaz|pravid", "předchoz|předešl|všechn|výše"),
    "da": (
        "ignorer|glem|se bort fra",
        "instruktion|anvisning|ordre|regler|instruks",
        "tidligere|forrige|alle|ovenstående|foregående",
    ),
    "eo": ("ignoru|forgesu|malatentu", "instrukci|ordon|regul", "antaŭ|ĉiuj|suprajn"),
    "et": ("eira|ignoreeri|unusta", "juhis|korraldus|käsk|reegl", "varasema|eelneva|eelmis|kõik|ülaltoodud"),
    "fi": ("ohita|unohda|jätä huomiotta|sivuuta", "ohje|käsky|sään|määräy", "aiem|edelli|aikaisem|kaik|yllä"),
    "gl": ("ignora|esquece|desatende", "instrución|orde|regras", "anterior|previa|todas|arriba"),
    "ka": ("უგულებელყავი|დაივიწყე|იგნორირება", "ინსტრუქცი|მითითებ|ბრძანებ", "წინა|ყველა|ზემო"),
    "el": ("αγνόησ|αγνοήσ|ξέχασ|ξεχάστ|παράβλεψ", "οδηγί|εντολ|κανόν", "προηγούμεν|όλες|όλους|παραπάνω"),
    "he": ("התעלם|התעלמ|שכח|תשכח", "הוראות|ההוראות|הנחיות|ההנחיות|פקודות", "קודמ|הקודמ|כל |לעיל"),
    "hi": ("अनदेखा|नज़रअंदाज़|भूल|उपेक्षा", "निर्देश|आदेश|नियम", "पिछले|पहले|सभी|उपरोक्त|पूर्व"),
    "hu": (
        "hagyd figyelmen kívül|hagyja figyelmen kívül|felejtsd el|mellőzd",
        "utasítás|szabály|parancs|útmutat",
        "korábbi|előző|összes|fenti|minden",
    ),
    "is": ("hunsa|gleymdu|horfðu fram hjá", "leiðbein|fyrirmæl|regl", "fyrri|allar|öllum|ofangrein"),
    "id": (
        "abaikan|lupakan|jangan ikuti|hiraukan",
        "instruksi|perintah|petunjuk|arahan|aturan",
        "sebelum|terdahulu|semua|semula|di atas",
    ),
    "ga": ("déan neamhaird|déan dearmad|tabhair neamhaird", "treoir|treorach|treoracha|orduithe", "roimhe|gach|thuas"),
    "kk": ("елеме|ұмыт|назарға алма", "нұсқау|бұйрық|ереже", "алдыңғы|барлық|жоғары"),
    "ko": ("무시|잊어|잊으|따르지 마", "지시|명령|지침|프롬프트|규칙", "이전|앞|모든|위의|위에"),
    "la": ("neglege|ignora|obliviscere", "mandata|praecepta|iussa", "priora|omnia|superiora"),
    "lv": ("ignorē|aizmirst|neņem vērā", "instrukcij|norādījum|norād|noteikum", "iepriekš|visas|visus|augstāk"),
    "lt": ("ignoruok|pamiršk|nepaisyk", "instrukcij|nurodym|taisykl|komand", "ankstesn|visas|visus|aukščiau"),
    "mk": ("игнорирај|заборави|занемари", "инструкци|упатств|наредб", "претходн|сите|горе"),
    "ms": ("abaikan|lupakan|jangan ikut", "arahan|perintah|peraturan", "terdahulu|sebelum|semua|di atas"),
    "mr": ("दुर्लक्ष|विसर", "सूचना|आदेश|निर्देश", "मागील|आधी|सर्व|वरील"),
    "no": (
        "ignorer|glem|se bort fra",
        "instruksjon|instruks|anvisning|ordre|regler",
        "tidligere|forrige|alle|ovenfor|foregående",
    ),
    "fa": ("نادیده بگیر|فراموش کن|بی‌توجه", "دستورالعمل|دستور|راهنما", "قبلی|پیشین|تمام|همه|بالا"),
    "pl": ("zignoruj|ignoruj|zapomnij|pomiń", "instrukcj|polece|zasad|wytyczn", "poprzedni|wszystk|wcześniej|powyż"),
    "ro": (
        "ignor[ăa]|uit[ăa]|nu [țt]ine cont",
        "instruc[țt]iun|ordin|regul|comen",
        "anterioare|precedent|toate|de mai sus",
    ),
    "sr": ("занемари|игнориши|заборави", "упутств|инструкциј|налог|правил", "претходн|раниј|све |горе"),
    "sk": ("ignoruj|zabudni|nevšímaj", "pokyn|inštrukci|príkaz|pravid", "predchádzaj|predošl|všetk|vyššie"),
    "sl": ("prezri|ignoriraj|pozabi|ne upoštevaj", "navodil|ukaz|pravil", "prejšnj|vsa |vse |zgornj|predhodn"),
    "sw": ("puuza|sahau|usifuate", "maagizo|maelekezo|amri|kanuni", "awali|yote|hapo juu|zilizotangulia"),
    "sv": ("ignorera|glöm|bortse", "instruktion|anvisning|order|regler", "tidigare|föregående|alla|ovan"),
    "tl": (
        "huwag pansinin|balewalain|kalimutan|huwag sundin",
        "tagubilin|utos|panuto|instruksyon",
        "nauna|lahat|dati|itaas",
    ),
    "ta": ("புறக்கணி|மறந்து", "அறிவுறுத்தல்|கட்டளை|வழிமுறை", "முந்தைய|அனைத்து|மேலே"),
    "te": ("విస్మరించ|మర్చిపో|పట్టించుకోవద్దు", "సూచన|ఆదేశ|నిర్దేశ", "మునుపటి|అన్ని|పై"),
    "th": ("ละเว้น|เพิกเฉย|ไม่ต้องสนใจ|ลืม", "คำสั่ง|คำแนะนำ", "ก่อนหน้า|ทั้งหมด|ข้างต้น|ด้านบน"),
    "tr": ("yok ?say|görmezden gel|dikkate alma|unut", "talimat|komut|yönerge|kural|emir", "önceki|tüm|bütün|yukarıda"),
    "uk": ("ігноруй|проігноруй|забудь|не зважай", "інструкці|вказівк|наказ|правил", "попередн|усі|всі|вище"),
    "ur": ("نظر انداز|بھول جا", "ہدایات|احکامات|ہدایت", "پچھلی|پچھلے|تمام|اوپر|سابقہ"),
    "vi": ("bỏ qua|phớt lờ|quên", "hướng dẫn|chỉ dẫn|chỉ thị|lệnh|quy tắc", "trước|tất cả|mọi|bên trên|ở trên"),
    "cy": ("anwybydd|anghofi", "cyfarwydd|gyfarwydd|gorchmyn", "blaenorol|flaenorol|holl|uchod"),
    "zh": (
        "忽略|无视|無視|忘记|忘記|忽視|不要理会|不要理會",
        "指令|指示|說明|说明|提示|規則|规则|命令",
        "之前|以上|前面|先前|上述|上面|所有",
    ),
}
_LARGEST_GAP = 60  # characters between verb and noun


def _pattern(verbs: str, nouns: str, before: str) -> re.Pattern[str]:
    gap = rf"[^.!?。।։\n]{{0,{_LARGEST_GAP}}}?"
    verb, noun, old = (
        f"(?:{words})" if _has_no_spaces(words) else rf"\b(?:{words})" for words in (verbs, nouns, before)
    )
    orders = (f"{verb}{gap}{old}{gap}{noun}", f"{verb}{gap}{noun}{gap}{old}", f"{old}{gap}{noun}{gap}{verb}")
    return re.compile("|".join((*orders, f"{noun}{gap}{old}{gap}{verb}")))


def _has_no_spaces(words: str) -> bool:
    """Return whether words of this script have no gaps, or parts before them, as in Chinese, Thai and Hebrew."""
    return any(name in unicodedata.name(words[0], "") for name in ("CJK", "HANGUL", "THAI", "HEBREW", "GEORGIAN"))


def _stems() -> dict[str, list[str]]:
    """Return the languages by the plain beginning of each of their verbs."""
    by_stem: dict[str, list[str]] = {}
    for language, (verbs, _, _) in _WORDS.items():
        for verb in unicodedata.normalize("NFKC", verbs).split("|"):
            by_stem.setdefault(re.split(r"\[|.\?", verb)[0], []).append(language)
    return by_stem


_STEMS = _stems()
_ASCII_STEMS = {stem: languages for stem, languages in _STEMS.items() if stem.isascii()}
_PATTERNS: dict[str, re.Pattern[str]] = {}


def foreign_override(plain: str) -> str:
    """Return the words of a text, in plain form, that order to give up earlier instructions; "" if there are none."""
    stems = _ASCII_STEMS if plain.isascii() else _STEMS
    likely = [stem for stem in stems if stem in plain]
    for language in dict.fromkeys(language for stem in likely for language in stems[stem]):
        if language not in _PATTERNS:
            _PATTERNS[language] = _pattern(*(unicodedata.normalize("NFKC", part) for part in _WORDS[language]))
        if match := _PATTERNS[language].search(plain):
            return match.group()
    return ""
