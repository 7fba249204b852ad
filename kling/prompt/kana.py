"""Words that children write in kana and the tokenizer then cuts wrongly: はこの is no この, さかを no か.

Only where the words around leave one reading; all other kana words find their spelling by Sudachi's own normal form.
"""

import re

_OPENS = r"(?:(?<=[のいながはとも、。,. \n0-9ぁ-ん]の)|(?<=[いながもと、。,. \n])|^)"  # what may stand before a noun
_PLACES = "うえ|まえ|うしろ|した|なか|そば|よこ|となり|みぎ|ひだり|むこう|上|前|後ろ|下|中|横|隣|左|右|そと|まわり"
_SPELLINGS = (
    (rf"{_OPENS}はこ(?=の(?:{_PLACES}|ほう)|[がをにへはもと、。,.]|$)", "箱"),
    (r"(?<=[0-9一二三四五六七八九十])こ(?=[のがをはとも、。,. ]|$|ころが|おち|あ[るっり]|なら)", "個"),
    (r"(?<=[がはのも、。 ])した(?=[にへ])", "下"),
    (r"(?<=[がはのも、。 ])うえ(?=[にへからで])", "上"),
    (rf"{_OPENS}さか(?=[をで]|から)|(?<=みんな)さか(?=を)", "坂"),
    (rf"{_OPENS}やま(?=[をのに]|から)", "山"),
    (rf"{_OPENS}き(?=の(?:{_PLACES}))", "木々"),
    (rf"{_OPENS}つみき", "積み木"),
    (rf"{_OPENS}ゆか(?=[をにでの])", "床"),
    ("まんまるの?", "丸い"),
    (r"(?<=[まんうしこぎ])さん(?=[がをにはのと])", ""),  # くまさん
    ("ぼーる", "ボール"),
    ("ぴんく", "ピンク"),
    ("おれんじ", "オレンジ"),
    ("かめら", "カメラ"),
    ("ごむ(?=の|ボール)", "ゴム"),
    ("がらす(?=の)", "ガラス"),
    ("てーぶる", "テーブル"),
    ("ろぼっと", "ロボット"),
    ("こーん(?=[がをにはの])", "コーン"),
    ("ぶろっく", "ブロック"),
    ("たいや", "タイヤ"),
    ("ちっちゃな", "小さな"),
    ("おっきな", "大きな"),
    ("でっかな", "大きな"),
    ("ちっさい|ちっさな|ちいちゃい|ちいちゃな|ちびっこい", "小さい"),
)
_PATTERNS = tuple((re.compile(pattern), word) for pattern, word in _SPELLINGS)


def from_kana(text: str) -> str:
    """The text with such words in their usual spelling."""
    for pattern, word in _PATTERNS:
        text = pattern.sub(word, text)
    return text
