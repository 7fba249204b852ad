"""World knowledge for things outside the playground: which of its shapes stands for them, how big, heavy, slippery.

One line a noun: ``noun|synonym: proxy, half sizes in metres (one number: all three alike), mass in kg, made of``.
"Made of" chooses friction and restitution (kling.prompt.knowledge); "fixed" things do not move when hit, "alive" ones
push without bumping into what they push. Sizes and masses are those of a typical specimen. Liquids, cloth and people's
own movements are not simulated.
"""

from dataclasses import dataclass

from kling.prompt.knowledge import FRICTION, RESTITUTION


@dataclass(frozen=True, kw_only=True)
class Noun:
    """What is known of a noun. Half sizes along the proxy's own axes, as in kling.scene.plan.PlannedObject."""

    name: str
    proxy: str
    half_size_m: tuple[float, float, float]
    mass_kg: float
    friction: float
    restitution: float
    fixed: bool
    rolls: bool
    alive: bool = False


_TABLE = """
dog|puppy: capsule, 0.15 0.15 0.40, 20, soft, alive
cat|kitten: capsule, 0.10 0.10 0.25, 4, soft, alive
mouse|hamster: capsule, 0.03 0.03 0.05, 0.03, soft, alive
rabbit|bunny: capsule, 0.09 0.09 0.20, 2, soft, alive
horse|pony: capsule, 0.35 0.35 1.1, 450, soft, alive
cow|bull: capsule, 0.4 0.4 1.1, 600, soft, alive
pig: capsule, 0.25 0.25 0.6, 120, soft, alive
sheep|lamb|goat: capsule, 0.25 0.25 0.5, 60, soft, alive
elephant: capsule, 0.9 0.9 2.2, 4000, soft, alive
lion|tiger: capsule, 0.3 0.3 0.9, 180, soft, alive
bear: capsule, 0.4 0.4 0.9, 200, soft, alive
panda: capsule, 0.35 0.35 0.7, 100, soft, alive
fox|wolf: capsule, 0.13 0.13 0.4, 15, soft, alive
monkey: capsule, 0.13 0.13 0.3, 8, soft, alive
giraffe: capsule, 0.5 0.5 2.4, 900, soft, alive
deer|zebra|camel|kangaroo: capsule, 0.3 0.3 0.9, 180, soft, alive
hippo|rhino|gorilla|koala|crocodile: capsule, 0.4 0.4 1.0, 300, soft, alive
whale|dolphin|shark: capsule, 0.5 0.5 1.5, 500, soft, alive
squirrel|hedgehog|crab|octopus|chick: capsule, 0.06 0.06 0.09, 0.4, soft, alive
rubber duck: capsule, 0.04 0.04 0.05, 0.05, rubber
penguin|duck|chicken|hen|goose: capsule, 0.1 0.1 0.25, 4, soft, alive
bird|pigeon|sparrow|parrot|owl|crow: capsule, 0.05 0.05 0.1, 0.3, soft, alive
fish: capsule, 0.04 0.04 0.15, 1, soft, alive
frog|turtle|tortoise: capsule, 0.08 0.08 0.1, 1, soft, alive
snake: capsule, 0.03 0.03 0.6, 2, soft, alive
butterfly|bee|bug|insect|ladybug|ant|spider: capsule, 0.01 0.01 0.02, 0.001, soft, alive
dinosaur: capsule, 1.0 1.0 3.0, 5000, soft, alive
boy|girl|child|kid: cylinder, 0.15 0.15 0.65, 30, soft, alive
man|woman|adult|dancer|athlete|astronaut|worker|chef|teacher|student: cylinder, 0.22 0.22 0.87, 70, soft, alive
baby|toddler: cylinder, 0.1 0.1 0.35, 8, soft, alive
robot: cylinder, 0.22 0.22 0.8, 60, metal, alive
car|taxi: cube, 2.2 0.9 0.75, 1400, metal
sports car: cube, 2.2 0.95 0.6, 1500, metal
toy car: cube, 0.06 0.03 0.025, 0.1, wood
truck|lorry: cube, 3.5 1.2 1.4, 8000, metal
bus: cube, 5.5 1.25 1.5, 11000, metal
van: cube, 2.5 1.0 1.0, 2200, metal
ambulance|fire truck|police car: cube, 2.7 1.0 1.1, 3000, metal
bulldozer|excavator|forklift|tank: cube, 2.2 1.1 1.2, 9000, metal
cart|wagon|trolley|shopping cart|stroller|handcart: cube, 0.4 0.25 0.3, 15, metal
train: cube, 10 1.5 2.0, 40000, metal
toy train: cube, 0.15 0.04 0.05, 0.4, wood
tractor: cube, 2.0 1.0 1.3, 3500, metal
motorcycle|motorbike|scooter: cube, 1.0 0.35 0.55, 180, metal
bicycle|bike: cube, 0.9 0.25 0.5, 12, metal
tricycle: cube, 0.4 0.25 0.3, 8, metal
snowboard|surfboard|ski: cube, 0.8 0.15 0.02, 3, wood
skateboard|sled|sledge: cube, 0.4 0.1 0.06, 2.5, wood
boat|ship: capsule, 1.0 1.0 3.0, 900, wood
airplane|plane|helicopter|rocket|spaceship|drone toy|submarine|satellite|ufo: capsule, 1.5 1.5 6.0, 4000, metal
apple: ball, 0.04, 0.18, wood
orange|lemon|lime fruit|peach|pear|persimmon|tomato|potato|onion|plum: ball, 0.04, 0.16, rubber
banana: capsule, 0.02 0.02 0.1, 0.12, soft
grape|cherry|berry|blueberry|strawberry: ball, 0.012, 0.01, soft
watermelon: ball, 0.14, 6, wood
melon|pumpkin|cabbage: ball, 0.13, 4, wood
coconut: ball, 0.07, 1.4, wood
pineapple: cylinder, 0.06 0.06 0.15, 1.2, wood
carrot|cucumber|sausage|hot dog: capsule, 0.02 0.02 0.1, 0.12, wood
egg: capsule, 0.022 0.022 0.03, 0.06, wood
acorn|chestnut|walnut|pinecone: ball, 0.016, 0.015, wood
leaf: cube, 0.04 0.03 0.002, 0.001, soft
candy|dumpling: ball, 0.015, 0.015, wood
rice ball: cone, 0.05 0.05 0.05, 0.12, soft
chocolate|tofu: cube, 0.06 0.04 0.02, 0.2, soft
pudding|jelly: cylinder, 0.04 0.04 0.03, 0.12, soft
bread|loaf|sandwich|burger|hamburger: cube, 0.12 0.06 0.06, 0.5, soft
cake|pie|pizza|cheese|donut|doughnut: cylinder, 0.14 0.14 0.05, 0.8, soft
cookie|biscuit|coin|button|puck|hockey puck|plate|disc|disk|frisbee: cylinder, 0.04 0.04 0.01, 0.05, wood
ice cream|ice cream cone: cone, 0.035 0.035 0.09, 0.15, soft
ice cube|sugar cube: cube, 0.015, 0.02, ice
basketball: ball, 0.12, 0.62, rubber
soccer ball|football|volleyball: ball, 0.11, 0.43, rubber
tennis ball: ball, 0.033, 0.058, rubber
ping pong ball|table tennis ball: ball, 0.02, 0.0027, rubber
golf ball: ball, 0.021, 0.046, rubber
baseball|cricket ball: ball, 0.037, 0.145, wood
rugby ball|american football: capsule, 0.09 0.09 0.14, 0.43, rubber
shuttlecock: cone, 0.03 0.03 0.04, 0.005, wood
beach ball|balloon: ball, 0.2, 0.1, rubber
bowling ball: ball, 0.108, 6, wood
billiard ball|pool ball|snooker ball: ball, 0.028, 0.17, wood
snowball: ball, 0.05, 0.2, soft
cannonball|wrecking ball|pendulum: ball, 0.1, 30, metal
crystal ball|disco ball: ball, 0.1, 2, glass
marble: ball, 0.008, 0.005, glass
bead|pearl|pea|bubble: ball, 0.005, 0.001, glass
pebble|stone|rock: ball, 0.05, 1.3, stone
boulder: ball, 0.6, 2300, stone
asteroid|planet|meteor|moon rock: ball, 0.8, 4000, stone
brick: cube, 0.1 0.05 0.033, 2.8, stone
tile: cube, 0.1 0.1 0.005, 0.3, stone
dice|die: cube, 0.008, 0.004, wood
domino: cube, 0.012 0.004 0.024, 0.01, wood
book|notebook|magazine|laptop|tablet|smartphone|phone: cube, 0.1 0.07 0.015, 0.5, wood
card|playing card|envelope: cube, 0.045 0.03 0.001, 0.003, wood
suitcase|package|parcel|crate|chest|gift|present|cardboard box: cube, 0.25 0.2 0.2, 6, wood
milk carton|juice box: cube, 0.04 0.04 0.1, 1, wood
television|tv|monitor|computer|radio|clock|toaster|camera body: cube, 0.3 0.1 0.2, 6, metal
microwave: cube, 0.25 0.18 0.15, 12, metal
fridge|refrigerator|washing machine|oven|safe|vending machine: cube, 0.3 0.3 0.8, 60, metal
wardrobe|closet|cupboard|cabinet: cube, 0.3 0.3 0.8, 60, metal
chair|armchair|stool: cube, 0.22 0.22 0.42, 6, wood
table|desk|workbench: cube, 0.6 0.4 0.37, 25, wood
bench: cube, 0.7 0.2 0.22, 20, wood
pool table|billiard table: cube, 1.2 0.7 0.4, 200, wood, fixed
piano: cube, 0.75 0.3 0.6, 220, wood
bed|sofa|couch: cube, 1.0 0.5 0.35, 50, soft
shelf|bookshelf: cube, 0.4 0.15 0.8, 25, wood
pillow|cushion: cube, 0.25 0.2 0.07, 0.6, soft
bottle|water bottle: cylinder, 0.035 0.035 0.12, 0.6, glass
thermos: cylinder, 0.035 0.035 0.12, 0.5, metal
paper cup: cylinder, 0.035 0.035 0.045, 0.01, soft
cup|mug|glass|wine glass|glass cup|can|tin can|jar|soda can: cylinder, 0.04 0.04 0.05, 0.3, metal
vase|pot|flowerpot|bucket|basket|bowl|kettle|teapot: cylinder, 0.1 0.1 0.13, 1.5, stone
barrel|drum|oil drum|trash can: cylinder, 0.28 0.28 0.44, 30, metal
fire hydrant|mailbox: cylinder, 0.2 0.2 0.5, 60, metal, fixed
wheel|tire|tyre: cylinder, 0.3 0.3 0.1, 12, rubber
log|trunk|pipe|rod|stick|pole|column|pillar: cylinder, 0.1 0.1 0.6, 20, wood
traffic light|utility pole|flagpole: cylinder, 0.12 0.12 2.0, 150, metal, fixed
gear|cog|hoop|hula hoop: cylinder, 0.1 0.1 0.02, 1, metal
bolt|nut|screw|nail: cylinder, 0.006 0.006 0.02, 0.02, metal
pencil|pen|candle|crayon|lipstick|straw|chopsticks|dart|arrow: cylinder, 0.006 0.006 0.08, 0.01, wood
pin|bowling pin|skittle: cylinder, 0.05 0.05 0.19, 1.5, wood
rolling pin: cylinder, 0.03 0.03 0.2, 0.7, wood
chess piece|pawn: cone, 0.015 0.015 0.04, 0.03, wood
battery: cylinder, 0.007 0.007 0.025, 0.025, metal
robot vacuum: cylinder, 0.17 0.17 0.045, 3, metal
turntable: cylinder, 0.2 0.2 0.05, 5, metal, fixed
trampoline: cylinder, 0.9 0.9 0.2, 60, rubber, fixed
lamp|lantern|street lamp|mushroom|umbrella: cylinder, 0.12 0.12 0.25, 2, metal
traffic cone: cone, 0.14 0.14 0.35, 2, rubber
pyramid|tent|party hat|hat: cone, 0.25 0.25 0.25, 3, wood
spinning top|toy top|top: cone, 0.03 0.03 0.03, 0.05, wood
tree|pine|pine tree|palm tree|christmas tree: cone, 0.8 0.8 2.5, 500, wood, fixed
windmill: cone, 2 2 6, 20000, wood, fixed
bush|flower|rose bush|plant|houseplant|cactus|sunflower: capsule, 0.15 0.15 0.3, 2, soft, fixed
house|building|skyscraper|tower|castle|church|bridge: cube, 4 4 4, 100000, stone, fixed
wall|fence|door|gate|board: cube, 1.0 0.05 0.7, 400, stone, fixed
sign|road sign|goalpost|goal: cube, 0.3 0.03 0.5, 20, metal, fixed
plank|wooden beam|seesaw|ladder: cube, 0.6 0.12 0.02, 6, wood
rail|conveyor belt|conveyor: cube, 1.2 0.2 0.15, 200, metal, fixed
mirror|picture frame|flag: cube, 0.3 0.02 0.4, 4, wood
ramp|slope|incline|hill|mountain|inclined plane: cube, 1.0 0.5 0.25, 400, wood, fixed
stairs|stair|staircase|step|steps: cube, 0.8 0.5 0.4, 400, stone, fixed
platform|pedestal|ledge|stage|plinth|podium|counter: cube, 0.5 0.5 0.3, 200, wood, fixed
statue|sculpture|monument|snowman: cylinder, 0.3 0.3 0.9, 300, stone
doll|teddy|teddy bear|toy|plush|figurine: cylinder, 0.08 0.08 0.15, 0.3, soft
shoe|boot|sneaker|helmet|bag|backpack|handbag|glove|sock|wallet|crown: cube, 0.14 0.06 0.06, 0.8, soft
hammer|wrench|screwdriver|key|knife|spoon|fork|scissors|sword|axe|shovel|broom: capsule, 0.02 0.02 0.15, 0.6, metal
watch|ring|guitar|violin|trumpet|microphone|flashlight|frying pan: capsule, 0.02 0.02 0.15, 0.6, metal
baseball bat|racket|tennis racket|golf club|hockey stick: capsule, 0.03 0.03 0.4, 0.9, wood
dumbbell|barbell: capsule, 0.05 0.05 0.15, 5, metal
test weight|counterweight|anvil: cylinder, 0.05 0.05 0.06, 5, metal
bullet: capsule, 0.005 0.005 0.012, 0.01, metal
feather: capsule, 0.01 0.003 0.06, 0.001, soft
bell: cone, 0.06 0.06 0.07, 0.5, metal
light bulb: ball, 0.03, 0.05, glass
magnet|soap|sponge|eraser|remote control|keyboard|toothbrush|ruler: cube, 0.05 0.03 0.015, 0.1, rubber
cloud|ghost: ball, 0.5, 1, soft
"""
# (friction, restitution) of what the playground's materials do not cover.
_SURFACES = {"soft": (0.6, 0.15), "glass": (0.3, 0.55), "stone": (0.6, 0.25), "ice": (0.05, 0.2)}

_ROLLING = ("wheel", "tire", "tyre", "barrel", "oil drum", "log", "can", "tin can", "bottle", "pencil", "coin", "hoop")


def _read() -> dict[str, Noun]:
    nouns: dict[str, Noun] = {}
    for line in _TABLE.strip().splitlines():
        names, _, facts = line.partition(": ")
        proxy, sizes, mass, surface, *flags = facts.split(", ")
        numbers = [float(size) for size in sizes.split()]
        half = (numbers * 3)[:3]
        friction, restitution = _SURFACES.get(surface) or (FRICTION[surface], RESTITUTION[surface])
        for name in names.split("|"):
            nouns[name] = Noun(
                name=name,
                proxy=proxy,
                half_size_m=(half[0], half[1], half[2]),
                mass_kg=float(mass),
                friction=friction,
                restitution=restitution,
                fixed="fixed" in flags,
                alive="alive" in flags,
                rolls=proxy == "ball" or name in _ROLLING,
            )
    return nouns


NOUNS = _read()
# Nothing is known of the noun but that it is a thing: a box of everyday size.
UNKNOWN_NOUN = Noun(
    name="",
    proxy="cube",
    half_size_m=(0.2, 0.2, 0.2),
    mass_kg=5.0,
    friction=FRICTION[""],
    restitution=RESTITUTION[""],
    fixed=False,
    rolls=False,
)
