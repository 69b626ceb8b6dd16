"""Encodings: text in any common one is read as it was written, or its doubt is said."""

from __future__ import annotations

import pytest

from tunewright.text.encoding import damaged_byte, decode

TEXTS = {
    "fr": "Le phare éclairait chaque nuit et guidait les navires. La taxe était de douze pour cent.",
    "de": "Der Leuchtturm brannte jede Nacht und führte die Schiffe. Die Gebühr betrug zwölf Prozent, für alle gleich.",
    "es": "El faro alumbraba cada noche y guiaba los barcos. ¿Cuánto era? El impuesto subió a doce por ciento al año.",
    "pl": "Latarnia morska świeciła każdej nocy. Kupcy sprzedawali oliwę, wino i pszenicę, a podatek wynosił dwanaście procent.",
    "cs": "Maják svítil každou noc a vedl lodě, které připlouvaly z daleka. Kupci prodávali víno a daň činila dvanáct procent.",
    "hu": "A világítótorony minden éjjel égett. A kereskedők olajat, bort és búzát árultak, a tűző nap őrült fényű volt.",
    "tr": "Deniz feneri her gece yanıyor ve gemilere yol gösteriyordu. Tüccarlar yağ, şarap ve buğday satıyordu.",
    "lt": "Švyturys švietė kiekvieną naktį ir vedė laivus. Pirkliai pardavinėjo aliejų, o mokestis buvo dvylika procentų.",
    "ru": "Портовый сбор составляет триста крон в день. Капитан платит утром, а маяк светит каждую ночь.",
    "uk": "Маяк світив щоночі й вів кораблі, що приходили здалеку. Купці продавали олію, вино та пшеницю.",
    "el": "Τα λιμενικά τέλη είναι τριακόσιες κορώνες την ημέρα. Ο φάρος άναβε κάθε βράδυ.",
    "he": "המגדלור האיר בכל לילה והוביל את האוניות שבאו מרחוק. הסוחרים מכרו שמן, יין וחיטה.",
    "ar": "رسوم الميناء ثلاثمائة كرونة في اليوم، ويدفع القبطان في الصباح. كان المنارة تضيء كل ليلة.",
    "th": "ประภาคารส่องแสงทุกคืนและนำเรือที่มาจากแดนไกล พ่อค้าขายน้ำมัน เหล้าองุ่น และข้าวสาลีในตลาด",
    "ja": "港の使用料は一日につき三百円である。船長は朝に支払う。カメラは青い。",
    "zh": "港口费每天三百克朗。船长早上付款，灯塔每天晚上都亮着，引导远方的船只。",
    "ko": "항구의 등대는 매일 밤 불을 밝혀 먼 곳에서 오는 배를 인도했다. 상인들은 기름을 팔았다.",
}
ENCODINGS = {
    "fr": ["cp1252", "iso8859-15"],
    "de": ["cp1252"],
    "es": ["cp1252"],
    "pl": ["cp1250", "iso8859-2"],
    "cs": ["cp1250", "iso8859-2"],
    "hu": ["cp1250"],
    "tr": ["cp1254"],
    "lt": ["cp1257"],
    "ru": ["cp1251", "koi8-r", "cp866", "iso8859-5", "utf-16-le", "utf-16-be"],
    "uk": ["cp1251", "koi8-u"],
    "el": ["cp1253", "iso8859-7"],
    "he": ["cp1255"],
    "ar": ["cp1256", "iso8859-6"],
    "th": ["cp874"],
    "ja": ["cp932", "euc_jp", "iso2022_jp"],
    "zh": ["gb18030", "big5", "utf-16-le"],
    "ko": ["cp949", "utf-32"],
}


@pytest.mark.parametrize(
    ("language", "encoding"), [(code, name) for code, names in ENCODINGS.items() for name in names]
)
def test_text_in_the_encodings_of_its_language(language: str, encoding: str) -> None:
    raw = f"{TEXTS[language]}\n".encode(encoding, "ignore")
    decoded = decode(raw)
    assert decoded.text == raw.decode(encoding)
    assert decoded.encoding != "UTF-8"
    assert not decoded.doubt


@pytest.mark.parametrize("text", ["Müller", "café, 5 €", "Grüße", "naïve"])
def test_a_few_letters_are_western_and_in_doubt(text: str) -> None:
    decoded = decode(text.encode("cp1252"))
    assert decoded.text == text
    assert "save it as UTF-8" in decoded.doubt


def test_what_no_language_explains_is_in_doubt() -> None:
    letters = "".join(chr(c) for c in range(0xC0, 0x100)) * 4
    assert "save it as UTF-8" in decode(letters.encode("latin-1")).doubt


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_damaged_utf_8_is_in_doubt(mark: bytes) -> None:
    decoded = decode(mark + "Zwölf Türme über der Öffnung".encode() + b"\xe9.")
    assert decoded.encoding == "UTF-8"
    assert decoded.doubt == "1 byte(s) are not UTF-8, as the rest is"
    assert "0xe9" in damaged_byte(decoded.text)
