"""Japanese nouns outside the playground, one line a noun of kling.prompt.nouns: ``English: Japanese|Japanese``.

The first Japanese word is the one that the prompt builder writes.
"""

_TABLE = """
dog: 犬|いぬ|イヌ|ワンちゃん|わんちゃん
puppy: 子犬
cat: 猫|ねこ|ネコ
kitten: 子猫|仔猫
bird: 鳥
fish: 魚
horse: 馬|ウマ
cow: 牛|ウシ
pig: 豚|ブタ
sheep: 羊|ヒツジ
elephant: 象|ゾウ|ぞう
lion: ライオン
tiger: 虎|トラ
bear: 熊|くま|クマ
panda: パンダ
fox: 狐|キツネ
wolf: 狼|オオカミ
monkey: 猿|サル|さる
rabbit: ウサギ|うさぎ|兎
penguin: ペンギン
duck: アヒル
rubber duck: アヒルのおもちゃ
turtle: 亀|カメ
frog: 蛙|カエル
snake: 蛇|ヘビ
butterfly: 蝶
giraffe: キリン
dinosaur: 恐竜
mouse: ネズミ
boy: 男の子|少年
girl: 女の子|少女
child: 子供|子ども
man: 男性|男
woman: 女性|女
baby: 赤ちゃん
astronaut: 宇宙飛行士
robot: ロボット
car: 車|自動車|くるま|乗用車
sports car: スポーツカー
truck: トラック|ダンプカー|ダンプ
bus: バス
train: 電車|列車|新幹線|機関車|汽車
bicycle: 自転車|チャリ
motorcycle: バイク
airplane: 飛行機
rocket: ロケット
boat: 船|ボート|ヨット
toy car: おもちゃの車|ミニカー|ラジコンカー|ラジコン|車のおもちゃ
apple: リンゴ|りんご|林檎
orange: みかん
lemon: レモン
peach: 桃の実|もも
banana: バナナ
watermelon: スイカ
grape: ぶどう
tomato: トマト
strawberry: いちご|イチゴ
egg: 卵|たまご
bread: パン一斤|食パン
cake: ケーキ
pumpkin: かぼちゃ|カボチャ
chair: 椅子|いす|イス
desk: 机|つくえ
table: テーブル|ちゃぶ台|食卓
bench: ベンチ
bed: ベッド
sofa: ソファ|ソファー
shelf: 棚
bookshelf: 本棚
book: 本|絵本|辞書
bottle: 瓶|びん|ボトル|ペットボトル|ビン|空き瓶|ガラス瓶|ワインボトル
cup: コップ|カップ
can: 缶|空き缶|缶詰|アルミ缶|缶ジュース|ジュース缶
vase: 花瓶
bucket: バケツ|ばけつ
barrel: 樽
tire: タイヤ
log: 丸太|丸木
pencil: 鉛筆
candle: ろうそく|ロウソク|キャンドル
pin: ピン
lamp: ランプ|ランタン|提灯
umbrella: 傘
pyramid: ピラミッド
hat: 帽子
tree: 木々|樹木
flower: 花
house: 家
building: 建物|ビル
tower: 塔|タワー
castle: 城
bridge: 橋
wall: 壁|塀
door: ドア|扉
slope: 坂|坂道|斜面|傾斜面|傾斜|さか
ramp: スロープ|傾斜台|すべり台|滑り台|ジャンプ台|斜めの板
stairs: 階段|かいだん
platform: 台
ledge: 段差
pedestal: 台座
statue: 像|銅像|石像|彫刻
snowman: 雪だるま
doll: 人形|ダルマ|だるま|こけし
teddy bear: ぬいぐるみ|テディベア|くまのぬいぐるみ|クマのぬいぐるみ|熊のぬいぐるみ
toy: おもちゃ
shoe: 靴|スニーカー|くつ
soccer ball: サッカーボール|サッカーのボール
basketball: バスケットボール|バスケのボール|バスケットのボール
tennis ball: テニスボール
baseball: 野球ボール|野球の球|野球のボール
bowling ball: ボウリングの球|ボウリングボール|ボーリングの球|ボーリング球
bowling ball: ボウリングのボール|ボーリングのボール|ボウリング球|ボウリングの玉|ボーリングの玉|ボーリングボール
balloon: 風船|ふうせん
golf ball: ゴルフボール
marble: ビー玉|ガラス玉
beach ball: ビーチボール
rock: 岩
pebble: 小石|石ころ
brick: レンガ|煉瓦|れんが
dice: サイコロ|さいころ|ダイス
domino: ドミノ|ドミノ牌
suitcase: スーツケース|トランク
cardboard box: 段ボール箱|ダンボール箱
television: テレビ|モニター
clock: 時計|目覚まし時計
refrigerator: 冷蔵庫
phone: 電話|携帯電話|携帯|ケータイ
smartphone: スマートフォン|スマホ
computer: パソコン
pillow: 枕
bag: 鞄|かばん|バッグ|カバン|袋
guitar: ギター
key: 鍵
coin: コイン
plate: 皿
spinning top: コマ|独楽
cloud: 雲
planet: 惑星
meteor: 隕石
pony: 子馬|ポニー
goat: ヤギ
hamster: ハムスター
squirrel: リス|りす
hedgehog: ハリネズミ
deer: シカ|鹿
camel: ラクダ
zebra: シマウマ
hippo: カバ
gorilla: ゴリラ
koala: コアラ
kangaroo: カンガルー
crocodile: ワニ
whale: クジラ
dolphin: イルカ
shark: サメ
crab: カニ
octopus: タコ
chick: ひよこ|ヒヨコ
chicken: ニワトリ|にわとり|鶏
pigeon: ハト|鳩
crow: カラス
sparrow: スズメ
owl: フクロウ
bee: ハチ|蜂
ant: アリ
ladybug: テントウムシ|てんとう虫
teacher: 先生
taxi: タクシー
ambulance: 救急車
police car: パトカー
fire truck: 消防車
bulldozer: ブルドーザー
excavator: ショベルカー
forklift: フォークリフト
tank: 戦車
tractor: トラクター
cart: 台車|カート|手押し車
wagon: ワゴン|荷車|トロッコ|貨車
shopping cart: ショッピングカート|買い物カート
stroller: ベビーカー
toy train: おもちゃの電車|電車のおもちゃ|おもちゃの汽車
tricycle: 三輪車
scooter: スクーター
skateboard: スケートボード|スケボー
snowboard: スノーボード|スノボ
sled: そり|ソリ
submarine: 潜水艦
helicopter: ヘリコプター|ヘリ
spaceship: 宇宙船
satellite: 人工衛星
ufo: UFO
asteroid: 小惑星
pear: 梨
persimmon: 柿
cherry: さくらんぼ|サクランボ
melon: メロン
pineapple: パイナップル
coconut: ココナッツ
carrot: にんじん|ニンジン|人参
cucumber: きゅうり|キュウリ
potato: じゃがいも|ジャガイモ
onion: 玉ねぎ|タマネギ|玉葱
cabbage: キャベツ
mushroom: きのこ|キノコ
chestnut: 栗
walnut: くるみ|クルミ
acorn: どんぐり|ドングリ
pinecone: 松ぼっくり|松かさ
leaf: 葉っぱ|落ち葉|木の葉
hamburger: ハンバーガー
sandwich: サンドイッチ
pizza: ピザ
donut: ドーナツ
cookie: クッキー
pudding: プリン|ゼリー
tofu: 豆腐
rice ball: おにぎり
dumpling: 団子|だんご|まんじゅう|饅頭
candy: 飴|キャンディ|キャンディー|飴玉
chocolate: チョコ|チョコレート
ice cream: アイスクリーム|ソフトクリーム
cheese: チーズ
sugar cube: 角砂糖
ice cube: 角氷
stool: スツール|丸椅子|踏み台
workbench: 作業台
pool table: ビリヤード台
cabinet: 戸棚|食器棚
wardrobe: タンス|箪笥|クローゼット
washing machine: 洗濯機
microwave: 電子レンジ
oven: オーブン
toaster: トースター
safe: 金庫
radio: ラジオ
cushion: クッション|座布団
thermos: 水筒
milk carton: 牛乳パック
mug: マグカップ|マグ|湯呑み
glass: グラス
wine glass: ワイングラス
paper cup: 紙コップ
bowl: ボウル|お椀|茶碗|どんぶり
kettle: やかん|ヤカン|ケトル
teapot: 急須|ティーポット
pot: 鍋|壺|つぼ
flowerpot: 植木鉢
frying pan: フライパン
spoon: スプーン|さじ
fork: フォーク
knife: ナイフ|包丁
chopsticks: 箸
basket: かご|カゴ|籠|バスケット
trash can: ゴミ箱|ごみ箱
oil drum: ドラム缶
wheel: 車輪|ホイール
gear: 歯車|ギア
screw: ネジ|ねじ
nail: 釘|くぎ
bolt: ボルト
nut: ナット
stick: 棒|枝|木の枝
pipe: パイプ
pillar: 柱
plank: 板|木の板
rail: レール|線路
conveyor belt: ベルトコンベア|ベルトコンベヤー|コンベア
seesaw: シーソー
trampoline: トランポリン
pen: ペン|ボールペン|マーカー
crayon: クレヨン
eraser: 消しゴム
ruler: 定規|ものさし
scissors: はさみ|ハサミ
notebook: ノート
card: カード|トランプ
envelope: 封筒
bowling pin: ボウリングのピン|ボーリングのピン|ボウリングピン|ボーリングピン
light bulb: 電球
battery: 電池|乾電池
magnet: 磁石
flashlight: 懐中電灯
street lamp: 街灯
goalpost: ゴール|サッカーゴール
traffic light: 信号機|信号
utility pole: 電柱
sign: 看板|標識
mailbox: ポスト|郵便受け
vending machine: 自動販売機|自販機
fire hydrant: 消火栓
traffic cone: カラーコーン|パイロン|工事用コーン
tent: テント
flag: 旗
pine tree: 松の木
palm tree: ヤシの木|椰子の木
christmas tree: クリスマスツリー
bush: 茂み|低木
cactus: サボテン
sunflower: ひまわり|ヒマワリ
plant: 植物|観葉植物
windmill: 風車
church: 教会
fence: 柵|フェンス|ガードレール
gate: 門|ゲート|鳥居
hill: 丘
mountain: 山
counter: カウンター
ladder: はしご|梯子|脚立
figurine: フィギュア
boot: ブーツ|長靴
helmet: ヘルメット
glove: 手袋|グローブ
sock: 靴下
backpack: リュック|リュックサック|ランドセル
handbag: ハンドバッグ
wallet: 財布
crown: 王冠
ring: 指輪|輪っか
hoop: フラフープ
bell: 鈴|ベル|鐘
hammer: ハンマー|金づち|金槌|トンカチ
wrench: レンチ|スパナ
screwdriver: ドライバー
axe: 斧
sword: 剣|刀
shovel: シャベル|スコップ
broom: ほうき|箒
feather: 羽根|羽毛
arrow: 矢
dart: ダーツ
bullet: 弾丸|銃弾
cannonball: 砲弾|砲丸|大砲の弾
baseball bat: バット
racket: ラケット
golf club: ゴルフクラブ
hockey puck: ホッケーのパック
frisbee: フリスビー|円盤
dumbbell: ダンベル|鉄アレイ|バーベル
test weight: おもり|重り|錘|分銅
pendulum: 振り子
anvil: 金床
volleyball: バレーボール
ping pong ball: ピンポン玉|ピンポン球|卓球の球|卓球ボール
billiard ball: ビリヤードの球|ビリヤード球|ビリヤードの玉|ビリヤードボール|手球|的球
rugby ball: ラグビーボール
disco ball: ミラーボール
crystal ball: 水晶玉
snowball: 雪玉|雪だま
bubble: シャボン玉|しゃぼん玉|泡
pearl: 真珠
bead: ビーズ
boulder: 大岩|巨石|岩石
chess piece: チェスの駒|駒
gift: プレゼント|プレゼントの箱|ギフト
chest: 宝箱
parcel: 小包|荷物
soap: 石鹸|せっけん|石けん
sponge: スポンジ
toothbrush: 歯ブラシ
mirror: 鏡
remote control: リモコン
keyboard: キーボード
laptop: ノートパソコン|ノートPC
tablet: タブレット
watch: 腕時計
robot vacuum: ロボット掃除機
piano: ピアノ
drum: 太鼓|ドラム
trumpet: トランペット|ラッパ
violin: バイオリン|ヴァイオリン
microphone: マイク
moon rock: 月の石
"""

_LINES = (line.partition(": ") for line in _TABLE.strip().splitlines())
NOUNS_JA: dict[str, str] = {word: noun for noun, _, words in _LINES for word in words.split("|")}
