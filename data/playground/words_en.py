"""English: how the playground says each thing. After the comma: words kept for validation and benchmark prompts.

Verbs are "plural/singular/gerund", with "~" before a tail that follows direction and speed ("slide ... to a stop").
"""

from data.playground.words import Words, w

NOUNS: dict[str, Words] = {
    "ball": w("ball/balls|sphere/spheres", "orb/orbs"),
    "cube": w("cube/cubes|box/boxes", "block/blocks"),
    "cylinder": w("cylinder/cylinders", "tube/tubes"),
    "capsule": w("capsule/capsules", "pill/pills"),
    "cone": w("cone/cones"),
}
COLORS: dict[str, Words] = {
    "red": w("red", "scarlet"),
    "orange": w("orange"),
    "yellow": w("yellow"),
    "green": w("green", "emerald"),
    "cyan": w("cyan|turquoise", "aqua"),
    "blue": w("blue", "cobalt"),
    "purple": w("purple|violet"),
    "pink": w("pink", "magenta"),
}
SIZES: dict[str, Words] = {"small": w("small|little", "tiny"), "large": w("large|big", "huge")}
MATERIALS: dict[str, Words] = {"rubber": w("rubber"), "wood": w("wooden|wood"), "metal": w("metal|metallic", "steel")}
FINISHES: dict[str, Words] = {"matte": w("matte", "dull"), "shiny": w("shiny|glossy", "polished")}
NUMBERS = {
    2: w("two", "a pair of"),
    3: w("three"),
    4: w("four"),
    5: w("five"),
    6: w("six"),
    7: w("seven"),
    8: w("eight"),
}

VERBS: dict[str, Words] = {
    "fall": w("fall/falls/falling|drop/drops/dropping", "plummet/plummets/plummeting"),
    "bounce": w("bounce/bounces/bouncing|bounce/bounces/bouncing~up and down", "hop/hops/hopping"),
    "roll": w("roll/rolls/rolling", "trundle/trundles/trundling"),
    "slide": w("slide/slides/sliding|glide/glides/gliding|slide/slides/sliding~to a stop", "skid/skids/skidding"),
    "throw": w(
        "are thrown/is thrown/being thrown|are tossed/is tossed/being tossed",
        "are hurled/is hurled/being hurled",
    ),
    "spin": w("spin/spins/spinning|rotate/rotates/rotating|spin/spins/spinning~in place", "twirl/twirls/twirling"),
    "swing": w(
        "swing/swings/swinging|swing/swings/swinging~back and forth|swing/swings/swinging~like a pendulum",
        "sway/sways/swaying",
    ),
    "topple": w(
        "topple/topples/toppling~over|tip/tips/tipping~over|fall/falls/falling~over",
        "keel/keels/keeling~over",
    ),
    "collide": w(
        "collide/collides/colliding with|crash/crashes/crashing into|hit/hits/hitting|bump/bumps/bumping into",
        "slam/slams/slamming into|strike/strikes/striking",
    ),
    "stay": w(
        "stay/stays/staying still|remain/remains/remaining still|stay/stays/staying in place",
        "remain/remains/remaining motionless",
    ),
}  # fmt: skip
DIRECTIONS: dict[str, Words] = {
    "left": w("to the left|left", "leftward"),
    "right": w("to the right|right", "rightward"),
    "toward": w("toward the camera|towards the viewer", "towards the lens"),
    "away": w("away from the camera|away from the viewer", "into the distance"),
    "up": w("up into the air|upward", "straight up"),
    "down": w("downward"),
}
SPEEDS: dict[str, Words] = {
    "slow": w("slowly|gently", "at low speed"),
    "fast": w("quickly|rapidly|fast", "swiftly|at high speed"),
}
RELATIONS: dict[str, Words] = {
    "left_of": w("to the left of|left of", "on the left side of"),
    "right_of": w("to the right of|right of", "on the right side of"),
    "in_front_of": w("in front of"),
    "behind": w("behind"),
    "on": w("on top of|on", "atop"),
    "above": w("above", "directly above"),
    "near": w("near|next to|beside", "close to"),
}
SETTINGS: dict[str, Words] = {
    "grass": w("on grass|on a lawn|in a grassy field", "on a green meadow"),
    "sand": w("on sand|on a sandy beach|in the desert", "among the dunes"),
    "snow": w("on snow|in the snow", "on a snowy field"),
    "wood": w("on a wooden floor|on wooden floorboards", "on a parquet floor"),
    "night": w("at night|under a night sky", "in the dark of night"),
    "studio": w("in a white studio|in a studio", "on a white studio floor"),
}
LIGHTINGS: dict[str, Words] = {
    "studio": w("under studio lights|in studio lighting", "lit by softboxes"),
    "daylight": w("in daylight|in bright sunlight", "in the midday sun"),
    "dusk": w("at dusk|at sunset", "in the evening light"),
}
GRAVITIES: dict[str, Words] = {
    "moon": w("on the moon|in lunar gravity"),
    "mars": w("on Mars|in Martian gravity"),
    "zero": w("in zero gravity|without gravity", "in weightlessness"),
    "earth": w("in earth gravity"),
}
CAMERA: dict[tuple[str, str | None], Words] = {
    ("static", None): w("stay/stays/staying still|remain/remains/remaining static", "hold/holds/holding still"),
    ("dolly", "in"): w("dolly/dollies/dollying in|push/pushes/pushing in", "move/moves/moving closer"),
    ("dolly", "out"): w("dolly/dollies/dollying out|pull/pulls/pulling back", "back/backs/backing away"),
    ("dolly", "left"): w("dolly/dollies/dollying left|truck/trucks/trucking left", "track/tracks/tracking to the left"),
    ("dolly", "right"): w(
        "dolly/dollies/dollying right|truck/trucks/trucking right",
        "track/tracks/tracking to the right",
    ),
    ("pan", "left"): w("pan/pans/panning left|pan/pans/panning to the left", "turn/turns/turning left"),
    ("pan", "right"): w("pan/pans/panning right|pan/pans/panning to the right", "turn/turns/turning right"),
    ("tilt", "up"): w("tilt/tilts/tilting up", "tilt/tilts/tilting upward"),
    ("tilt", "down"): w("tilt/tilts/tilting down", "tilt/tilts/tilting downward"),
    ("zoom", "in"): w("zoom/zooms/zooming in"),
    ("zoom", "out"): w("zoom/zooms/zooming out"),
    ("orbit", "left"): w("orbit/orbits/orbiting left|circle/circles/circling to the left", "arc/arcs/arcing left"),
    ("orbit", "right"): w("orbit/orbits/orbiting right|circle/circles/circling to the right", "arc/arcs/arcing right"),
    ("crane", "up"): w("crane/cranes/craning up|rise/rises/rising", "lift/lifts/lifting up"),
    ("crane", "down"): w("crane/cranes/craning down|descend/descends/descending", "sink/sinks/sinking down"),
    ("roll", "left"): w("roll/rolls/rolling left|roll/rolls/rolling to the left"),
    ("roll", "right"): w("roll/rolls/rolling right|roll/rolls/rolling to the right"),
}  # fmt: skip
