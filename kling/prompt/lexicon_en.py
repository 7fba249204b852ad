"""English words as data: kind -> value -> the words for it, separated by "|".

A word may have several kinds ("roll" is an action and a camera move); the syntactic level chooses by place. Multi-word
entries are matched longest first on lemmas ("come to a stop" finds "comes to a stop").
"""

WORDS: dict[str, dict[str, str]] = {
    "noun": {
        "ball": "ball|sphere|orb|globe|round ball",
        "cube": "cube|box|block|square block",
        "cylinder": "cylinder|tube|cylindrical object",
        "capsule": "capsule|pill|pill shape",
        "cone": "cone|conical object",
        "": "object|thing|shape|item|body|something",
    },
    "color": {
        "red": "red|scarlet|crimson|ruby|reddish|red colored|red coloured",
        "orange": "orange|orange colored|orange coloured",
        "yellow": "yellow|lemon yellow|yellow colored|yellow coloured",
        "green": "green|emerald|lime|lime green|olive|green colored|green coloured",
        "cyan": "cyan|turquoise|teal|aqua|light blue|sky blue|cyan colored|cyan coloured",
        "blue": "blue|navy|azure|cobalt|blue colored|blue coloured",
        "purple": "purple|violet|lilac|lavender|purple colored|purple coloured",
        "pink": "pink|magenta|fuchsia|rose|pink colored|pink coloured",
        "white": "white",
        "black": "black",
        "brown": "brown",
        "gray": "gray|grey",
        "gold": "gold|golden",
        "silver": "silver|silvery",
    },
    "size": {
        "small": "small|lil|wee|teeny|smol"
        "|little|tiny|mini|miniature|smaller|smallest|small sized|petite|compact|minuscule",
        "large": "large|humongous|colossal|jumbo"
        "|big|huge|giant|enormous|larger|bigger|largest|biggest|massive|gigantic|large sized|oversized",
    },
    "material": {
        "rubber": "rubber|rubbery|rubberized",
        "wood": "wood|wooden|timber|oak",
        "metal": "metal|metallic|steel|iron|aluminium|aluminum|brass|chrome",
        "glass": "glass",
        "plastic": "plastic",
        "stone": "stone|marble stone|granite",
        "paper": "paper|cardboard",
    },
    "finish": {
        "matte": "matte|matt|mat|dull|unpolished|non shiny|flat finish",
        "shiny": "shiny|glossy|polished|gleaming|reflective|glistening|glittering|lustrous|shining|mirror like",
    },
    "number": {
        "1": "one|single|1|lone|solitary",
        "2": "two|pair of|pair|couple of|couple|2|twin",
        "3": "three|trio of|3",
        "4": "four|4|quartet of",
        "5": "five|5",
        "6": "six|6",
        "7": "seven|7",
        "8": "eight|8",
        "9": "nine",
        "10": "ten",
        "12": "twelve|dozen|dozen of",
        "100": "hundred|hundred of|dozens of",
        "1000": "thousand|thousand of|million|million of|infinite",
    },
    "ordinal": {
        "1": "first|former",
        "2": "second",
        "3": "third",
        "4": "fourth",
        "5": "fifth",
        "6": "sixth",
        "7": "seventh",
        "8": "eighth",
        "-1": "last|latter",
    },
    # A count that is only vaguely said; the semantic level takes the number and names a doubt.
    "vague": {"2": "some", "3": "several|few|a few|handful of", "5": "many|lot of|lots of|bunch of|plenty of"},
    # Before the things it is made of: "a stack of three cubes".
    "arrangement": {
        "on": "stack of|pile of|tower of|heap of|column of",
        "no": "ring of|circle of|group of|set of|row of|line of|cluster of|series of|collection of",
    },
    "determiner": {
        "a": "a|an|another",
        "the": "the|this|that|these|those|its|their|said|my|your|our|his|her|teh|ur",
        "all": "all|all of|every|each",
    },
    "pronoun": {
        "it": "it|itself|to its left|on its left|to its right|on its right",
        "they": "they|them|themselves",
        "both": "both|both of|both of them|the two|the two of them",
        "each other": "each other|one another|together",
        "everything": "everything|all objects|all of them",
        "others": "everything else|all other objects|all the other objects|the others|the other two"
        "|the other three|the other four|the other five|the other six|the rest|the other ones|the remaining ones"
        "|all the others|all the rest|the rest of them",
        "other": "the other|the other one|another one",
        "one": "one",
        "somebody": "somebody|someone|i|we|you|u|me|us|person|people|hand|nobody|no one|anyone|player|who|viewer",
        "nothing": "nothing|nothing else",
        "neither": "neither",
    },
    "verb": {
        "fall": "rain down|release|let go of|come back down|fall back|fall back down|drop back down|come down again"
        "|go back down"
        "|drop back|fall down again|fall again|fall|drop|plummet|plunge|descend|fall down|drop down|come down"
        "|fall freely|free fall",
        "bounce": "bounce|rebound|hop|ricochet|bounce up and down|bounce back|bob|boing|boing boing|go boing"
        "|go boing boing|bounce along",
        "roll": "roll|trundle|roll along",
        "slide": "slide|glide|skid|slip|slide to a stop|skate|slide to a halt|slither",
        "throw": "throw|toss|fling|hurl|launch|lob|pitch|shoot into|fly|soar|catapult",
        "spin": "spin|rotate|twirl|whirl|revolve|spin around|rotate around|turn around|spin on the spot"
        "|turn in place|rotate in place|spin in place|pirouette|gyrate",
        "swing": "swing|sway|oscillate|dangle|swing back and forth|swing to and fro|swing like a pendulum"
        "|swing from side to side|sway back and forth",
        "topple": "topple|topple over|tip over|fall over|keel over|tumble over|overturn|tip|collapse|flip over"
        "|fall on its side|fall onto its side|fall to its side|fall to the side|lose its balance|lose balance"
        "|go over",
        "collide": "collide|hit|strike|crash|slam|smash|bump|bang|ram|run into|smack|nudge|tap|impact|bash"
        "|meet|knock into|make contact|touch|brush against|crash land|bonk|clonk|thump|thwack|whack|plow into"
        "|plough into|barge into",
        "knock": "knock|bat|knock away|knock aside",
        "land": "land|touch down|come down on|hit the ground|hit the floor|strike the ground|reach the ground"
        "|reach the floor|strike the floor",
        "knock over": "knock over|knock down|bowl over|push over|knock off balance|send over",
        "stay": "stay still|remain still|stay|remain|keep still|stand still|sit still|lie still|hold still"
        "|do not move|not move|do not budge|stay put|stay in place|remain in place|remain motionless|stay motionless"
        "|stay where it be|remain at rest|stay at rest|remain stationary|stay stationary|be at rest|rest motionless"
        "|start still",
        "stop": "stop roll|stop spin|stop bounce|stop slide|stop rotate|stop swing"
        "|pause|stop|halt|come to a stop|come to rest|come to a halt|come to a standstill|stop move"
        "|come to a complete stop|stand still again",
        "posture": "balance|be balance|sit|stand|rest|lie|wait|park|perch|be rest",
        "move": "walk|run|crawl|march|gallop|trot|stroll|jog|move|travel|go|drive|come|head|proceed|advance|cruise"
        "|move along|wander|drift",
        "pass": "pass|overtake|pass by|cross|enter|leave|outrun|go past",
        "dash": "race|speed|dash|zip|rush|hurtle|dart|whiz|zoom past|streak|blast|charge|shoot|whoosh|go whoosh"
        "|go vroom"
        "|vroom|bolt|zoom off|sprint",
        "push": "push|kick|shove|flick|pull|drag",
        "make": "sandwich|hang|make|generate|create|show|see|want|render|produce|have|feature|depict|give|animate|film"
        "|imagine|draw|display|want to see|let|would like|watch|look|contain|include|visible|appear|place|put|set"
        "|position|locate|arrange|find|line up|capture|need|reveal|frame",
        "be": "be|exist|happen|occur|take place",
        "change": "slows|slows down|slow down|speed up|accelerate|decelerate|lose speed|gain speed|pick up speed"
        "|stick|stick together|merge|lose momentum|gain momentum|lose energy|gather speed|miss|wobble|tremble|shake"
        "|vibrate",
        "stack": "stack up|pile up|stack",
        "begin": "begin|start|start to|begin to|continue|continue to|keep|go on",
        "send": "send",
    },
    "auxiliary": {
        "do": "do",
        "get": "get",
        "have": "have",
        "will": "will|would|can|may|should|to|must",
        "let": "let",
    },
    "still": {"stay": "still|motionless|stationary|unmoving|immobile|at rest|not moving|resting still|standing still"},
    "relation": {
        "left_of": "left of|to the left of|on the left of|on the left side of|at the left of|to the left side of",
        "right_of": "right of|to the right of|on the right of|on the right side of|at the right of",
        "in_front_of": "in front of|before the front of|ahead of",
        "behind": "behind|in back of|at the back of",
        "on": "on top of|atop|upon|on|on the edge of|at the edge of|at the top of|on the top of",
        "above": "above|high above|hover over|directly above",
        "below": "under|below|beneath|underneath",
        "from behind": "from behind|out from behind",
        "from below": "from under|out from under|from beneath",
        "near": "next to|beside|near|close to|alongside|adjacent to|by the side of|not far from|by",
        # Each of several to the one after it.
        "near each other": "side by side|next to each other|beside each other|near each other|close together",
        "on each other": "stacked|stacked up|on top of each other|one on top of the other|one on top of another"
        "|stacked on top of each other|piled up|in a stack|stacked on each other|on top of one another|in a pile"
        "|stacked one on top of the other|on each other|piled on top of each other",
        "left_of each other": "in a line from left to right|in a row from left to right|lined up from left to right"
        "|arranged from left to right|placed from left to right|standing from left to right|ordered from left to right",
        "behind each other": "one behind the other|behind each other|behind one another|one behind another",
        "above each other": "one above the other|above each other|one above another",
        "between": "between|in between",
        "either side": "on either side of|on both sides of|at either side of|on each side of|to either side of",
    },
    "place": {  # where in the picture
        "left": "on the left|at the left|on the left side|on the left hand side|at left",
        "right": "on the right|at the right|on the right side|on the right hand side|at right",
        "middle": "in the middle|in the center|in the centre|in between them",
        "front": "in the foreground|in front|in the front",
        "back": "in the background|at the back|in back|in the distance",
    },
    "path": {
        "into": "into|against|onto|on to|with|at",
        "off": "off|off of|from the top of|from|off the edge of|over the edge of|from the edge of|off the side of"
        "|off the top of",
        "down": "down|down from",
        "up": "up",
        "across": "across|along",
        "past": "past|among|amid|around|through|over|in|inside|to|of|for|like|during|as far as|without|out of|beyond",
        "than": "than",
        "toward": "toward|towards|in the direction of",
        "like": "the size of|as big as|as small as|as large as|as heavy as|shaped like",
    },
    "direction": {
        "left": "left|leftward|leftwards|to the left|from right to left|right to left|from the right|leftwardly"
        "|toward the left|towards the left|to the left side|to the viewer left|in from the right|to its left"
        "|toward the left side|across the frame from right to left",
        "right": "right|rightward|rightwards|to the right|from left to right|left to right|from the left"
        "|toward the right|towards the right|to the right side|to the viewer right|in from the left|to its right",
        "toward": "toward the camera|towards the camera|toward the viewer|towards the viewer|toward us|towards us"
        "|toward me|towards me|to the camera|at the camera|toward the lens|towards the lens|to the front|closer"
        "|closer to the camera|in our direction|toward the screen|toward viewer|towards viewer|toward camera"
        "|towards camera|into the camera|forward|forwards|toward the front|nearer",
        "away": "away|away from the camera|away from the viewer|away from us|into the distance|into the background"
        "|to the back|backward|backwards|off into the distance|away from viewer|away from camera|into the depth"
        "|further away|farther away",
        "up": "up|upward|upwards|into the air|high into the air|up into the air|in the air|into the sky|up high"
        "|straight up|skyward|up in the air|high up",
        "down": "down|downward|downwards|straight down",
        "apart": "apart|away from each other|in opposite directions|away from one another|from each other",
        "clockwise": "clockwise",
        "counterclockwise": "counterclockwise|anticlockwise|counter clockwise|anti clockwise",
        "in": "in|inward|inwards|closer in",
        "out": "out|outward|outwards",
        "back": "back",
        "over": "over|around|round|about",
    },
    "speed": {
        "slow": "slow|slowly|gently|lazily|gentle|leisurely|unhurriedly|gradually|at low speed|at a slow pace"
        "|sluggishly|subtle|softly|slower|at a low speed|in a slow manner|gradual|smooth and slow|sort of slow|slo"
        "|slow and steady",
        "fast": "fast|quick|quickly|rapidly|rapid|swift|swiftly|at high speed|at great speed|speedily|faster|whip"
        "|at full speed|speedy|with speed|speeding|at a high speed|hard|briskly|at speed|abruptly|crash zoom"
        "|super fast|lightning fast|at top speed|in a flash",
    },
    "order": {
        "then": "then|and then|next|afterwards|afterward|after that|subsequently|later|after which|finally|at last"
        "|lastly|in the end|and finally|eventually|only then|thereafter|second|third|before finally|followed by",
        "first": "first|at first|firstly|initially|to begin with|in the beginning|to start with",
        "turn": "one after another|one by one|one after the other|in turn|one at a time",
        "same": "at the same time|simultaneously|at once|meanwhile|in the meantime|in unison|in parallel",
    },
    "subordinator": {
        "while": "while|even when|even as|even if|even though|as|whilst|at the same time as|during which|with",
        "after": "after|once|when|as soon as|because|since|whenever|if",
        "before": "before|until|till",
    },
    "relative": {"which": "which|that|who|whose", "how": "how|where|in which|so that"},
    "conjunction": {
        "and": "and|&|+|plus|as well as|along with|together with|vs|versus",
        "but": "but|yet|however|or|nor|so|just",
    },
    "negation": {
        "not": "not|never|almost|nearly|n't|neither|nor|don't|doesn't|isn't|aren't|won't|didn't|cannot|rather than"
        "|instead of",
        "neither": "none of|neither of|not one of",
        "no": "no|zero|without any|free of",
        "without": "without",
        "except": "except|except for|apart from|other than",
    },
    "camera": {"camera": "camera|cam|lens|viewpoint|point of view|camera view|drone|the view|our view"},
    "move": {  # what a camera does; also as a noun or tag: "slow zoom in"
        "static": "static shot|static camera|locked off|locked down|locked off shot|tripod shot|fixed camera"
        "|still camera|no camera movement|no camera motion|without camera movement|fixed shot|static|fixed|locked"
        "|stationary camera|steady shot|camera fixed|without any camera movement|unmoving camera|static view"
        "|motionless camera|locked off camera|without camera motion|still shot|stationary shot|no camera move"
        "|steady camera|tripod",
        "dolly in": "dolly in|push in|dolly forward|track in|dolly in shot|push forward|dolly closer|track forward"
        "|approach|dolly toward|push toward|creep in",
        "dolly out": "dolly out|pull back|pull out|dolly back|dolly backward|track out|pull away|track back"
        "|dolly backwards|back away|dolly away|retreat|back up",
        "dolly left": "dolly left|truck left|track left|dolly to the left|truck to the left|tracking shot left"
        "|track to the left|tracking shot to the left|truck leftward",
        "dolly right": "dolly right|truck right|track right|dolly to the right|truck to the right"
        "|tracking shot right|track to the right|tracking shot to the right|truck rightward",
        "dolly": "dolly|truck|dolly shot|tracking shot|travelling shot|traveling shot",
        "pan": "pan|panning shot|turn|pan shot|swivel|whip",
        "tilt": "tilt|tilt shot|look",
        "tilt up": "look up|tilt up",
        "tilt down": "look down|tilt down",
        "zoom in": "zoom in|zoom closer|crash zoom|punch in",
        "zoom out": "zoom out|zoom back",
        "zoom": "zoom|zoom shot",
        "orbit": "orbit|circle|arc|arc shot|orbit shot|orbiting shot|circle around|revolve around|arc around"
        "|orbit around|fly around|travel around|move around|swing around|rotate around|go around|orbital shot"
        "|circling shot|move in a circle|move in an arc|travel in a circle|fly in a circle",
        "crane up": "crane up|jib up|boom up|rise|pedestal up|rise up|ascend|climb|lift|lift up|crane shot up",
        "crane down": "crane down|jib down|boom down|sink|pedestal down|descend|lower|crane shot down",
        "crane": "crane|jib|crane shot|boom shot|jib shot|pedestal|boom",
        "roll": "roll|dutch roll|bank|spin|roll around its axis",
        "follow": "follow|track",
    },
    "setting": {
        "grass": "grass|lawn|meadow|green meadow|green lawn|green field|grassy field|grassy floor|grassy ground"
        "|grassland|field|park|pasture|grassy meadow|green grass|grass field|grassy|grass floor|football field|turf"
        "|grassy lawn|garden",
        "sand": "sand|beach|desert|dune|sand dune|sandy beach|sandy ground|sandy floor|sandy|seashore|shore"
        "|sand floor|sandy desert|sandbox|sandpit",
        "snow": "snow|snowy|snowy field|snowfield|snowy ground|snow covered ground|snow covered field"
        "|snowy landscape|fresh snow|winter landscape|snowy meadow|white snow|snowy floor|deep snow|snow falls"
        "|snow fall|fall snow|snow covered|snow floor|snowy plain",
        "wood": "wooden floor|wood floor|parquet|hardwood floor|wooden floorboard|wood|wooden board|floorboard"
        "|parquet floor|hardwood|wooden deck|wooden planks|wood flooring|wooden plank|wooden surface|wooden ground",
        "night": "night|at night|by night|night scene|nighttime|night sky|midnight|starry sky|starry night"
        "|night time|in the dark|dark night|moonlight|under the star|dark of night",
        "studio": "studio|white background|white studio|white backdrop|studio white|plain background"
        "|plain white background|studio background|white studio floor|plain white studio|infinity cove|white floor"
        "|studio backdrop|studio setting|bright studio|white void|studio floor|clean white background|studio lit by"
        "|seamless white background|photo studio",
    },
    "lighting": {
        "studio": "studio lighting|studio light|softbox|soft box|three point lighting|studio lamp|softbox lighting"
        "|soft studio light|soft studio lighting|bright studio lighting|studio lit|softbox light",
        "daylight": "daylight|sunlight|sunny|sunny day|bright sunlight|bright daylight|midday|noon|sunshine"
        "|in the sun|bright sun|bright day|by day|daytime|broad daylight|under a blue sky|sunny afternoon|clear day"
        "|day|morning light|natural daylight|under the sun|natural light|day light|full daylight|midday sun|sunlit"
        "|clear daylight|the sun shines|sun shine|sun shines|sun be shining|under a clear sky|midday light",
        "dusk": "dusk|sunset|twilight|golden hour|evening|evening light|late evening|at sundown|sundown|dusk light"
        "|evening sun|the sun sets|sun set|sun sets|sun go down|sun goes down|setting sun|sunset light"
        "|the light of dusk|nightfall|dusky light|light of dusk"
        "|dim evening light|magic hour|blue hour|gloaming|warm evening light|golden hour light|setting sun light",
    },
    "gravity": {
        "moon": "lunar gravity|moon gravity|low gravity|gravity of the moon|lunar surface|moon surface|reduced gravity",
        "mars": "martian gravity|mars gravity|gravity of mars|martian surface",
        "zero": "zero gravity|zero g|weightless|weightlessness|microgravity|no gravity|without gravity|outer space"
        "|weightlessly|absence of gravity|0 g|free of gravity|zero gee",
        "earth": "earth gravity|normal gravity|gravity of the earth|on earth|standard gravity",
    },
    # Places where world knowledge knows the gravity.
    "world": {"moon": "moon|the moon", "mars": "mars|red planet", "zero": "in space|space station|orbit of the earth"},
    "style": {
        "cinematic": "cinematic|cinematic style|movie like|film like|cinematic look|like a movie",
        "photorealistic": "photorealistic|photo realistic|hyperrealistic|hyper realistic|photorealism|photoreal",
        "realistic": "realistic|lifelike|realism",
        "cartoon": "cartoon|cartoon style|cartoonish|cartoony",
        "anime": "anime|anime style|manga style|manga",
        "watercolor": "watercolor|watercolour|watercolor style|watercolour style|watercolor painting",
        "oil painting": "oil painting|oil paint|oil on canvas",
        "film noir": "film noir|noir|noir style",
        "black and white": "black and white|monochrome|grayscale|greyscale",
        "minimalist": "minimalist|minimalistic|minimal style",
        "pixel art": "pixel art|pixelated|8 bit",
        "claymation": "claymation|clay animation|stop motion|plasticine",
        "3d render": "3d render|3d rendering|cgi|computer graphics|3d animation",
        "vintage": "vintage|retro|retro film|old film|vintage film",
        "documentary": "documentary|documentary style",
        "low poly": "low poly",
        "sketch": "pencil sketch|sketch|pencil drawing|line drawing",
        "comic": "comic|comic book|comic style",
        "slow motion": "slow motion|slow mo|slo mo",
    },
    # Words that carry the sentence and no content of their own.
    "filler": {
        "": "off the edge|over the edge|on the edge|to the edge|near the edge"
        "|one step at a time|step by step"
        "|nothing but|thx|thanks|thank you|pls|plz|vid|vids|clips|kinda|from the same height|at the same height|w"
        "|cheers"
        "|something like|product|product shot|video|clip|scene|shot|action|layout|setting|footage|frame|please"
        "|picture|image"
        "|view|there|here"
        "|background|floor|ground|surface|air|style|look|animation|movie|film|of|kind|very|really|quite|bright"
        "|brightly|just|only|simply|slightly|some point|perfectly|completely|totally|now|well|also|too|even|second"
        "|seconds|minute|meter|screen|sky|from the sky|from above|from a height|from high up|on the spot|in place"
        "|like a pendulum|back and forth|to and fro|side to side|from side to side|from a rope|on a rope"
        "|from a string|on a string|from a chain|on a chain|rope|string|from the ceiling|each|where|color|colour"
        "|colored|coloured|size|sized|so|which|its axis|around its axis|around its own axis|on its axis|hey|hello|hi"
        "|ok|okay|sort|kind of|place|motion|movement|lighting|light|gravity|to a stop|made|made of|made from"
        "|made out of"
        "|at the bottom|at the top|at a moderate speed|at a normal speed|at a steady pace|subject|head on|in a circle"
        "|from the front|from the side|from behind|from below|own"
        "|way|such|side|start|same|to the ground|to the floor|on the ground|on the floor"
        "|onto the floor|onto the ground|against the ground|of the frame|of the picture|of the scene|of the screen"
        "|across the frame|across the screen|from the ground|from the floor|on its own|by itself|alone"
        "|from a height of|gets|else|what|on the other side|from the other side|to the other side|on the far side"
        "|the other side|per"
        "|case|mid air|in mid air|a bit|a little bit|a little way|a short way|a short distance|a long way"
        "|some distance",
    },
    # Understood as picture talk that the graph has no place for: passed on as text.
    "adjective": {
        "": "leftmost|rightmost"
        "|heavy|light|tall|short|long|wide|thin|lonely|beautiful|nice|pretty|cute|old|new|soft|hard|smooth|rough"
        "|empty|extreme|shallow|deep|low|high|warm|cold|dark|dramatic|colorful|colourful|bouncy|heavier|lighter"
        "|medium|moderate|steady|taller|shorter|wider|thinner|tallest|shortest|highest|lowest|heaviest|lightest"
        "|nearest|closest|farthest|higher|longer|further|normal|round|square|plain|clean|clear|quiet|calm|loud"
        "|happy|sad|strange|magic|magical|different"
        "|same|identical|similar|various|other|lovely|upright|narrow|good|bad|great|amazing|perfect|solid|hollow"
        "|transparent|translucent|opaque|young|free|medium sized|medium size",
    },
    "abstract": {
        "": "physics sandbox|physics playground|physics demo|physics test|physics engine|physics simulation|simulation"
        "|demo|test|level|scenario|time|times|twice|once|once more|again|middle|center|centre|line"
        "|row|in a row|in a line|several times|many times|a few times|three times|two times|depth|diameter|radius"
        "|weight|mass|width|length|field of view"
        "|depth of field|close up|closeup|focus|angle|low angle|high angle|handheld|time lapse|feel|atmosphere|mood"
        "|wide shot|medium shot|shadow|reflection|texture|detail|quality|resolution|bokeh|fog|mist|rain|wind|storm"
        "|cloud|weather|music|sound|speed|force|energy|physics|direction|distance|height|moment|end|beginning|ice"
        "|water|smoke|fire|story|concept|idea|world|life|love|bird's eye view|top down|eye level|4k|8k|hd|uhd"
        "|hdr|full hd|1080p|720p|ultra hd|contrast"
        "|composition|lens flare|wide angle|macro|exposure|grain|film grain|hour|minute|dream|fun|beauty"
        "|nature|spot|balance|path|circle|gradient|grade|color grading|tone|palette|vibe|ambience",
    },
}

# Forms that no rule derives: surface -> (lemma, form).
IRREGULAR: dict[str, tuple[str, str]] = {
    "fell": ("fall", "ed"), "fallen": ("fall", "en"), "threw": ("throw", "ed"), "thrown": ("throw", "en"),
    "hit": ("hit", "base"), "struck": ("strike", "en"), "spun": ("spin", "en"), "swung": ("swing", "en"),
    "slid": ("slide", "en"), "ran": ("run", "ed"), "stood": ("stand",
    "en"), "sat": ("sit", "en"), "lay": ("lie", "ed"),
    "lying": ("lie", "ing"), "lies": ("lie", "s"), "flung": ("fling", "en"), "flew": ("fly", "ed"),
    "flown": ("fly", "en"), "is": ("be", "s"), "are": ("be", "s"), "was": ("be", "ed"), "were": ("be", "ed"),
    "been": ("be", "en"), "being": ("be", "ing"), "am": ("be", "s"), "'s": ("be", "s"), "'re": ("be", "s"),
    "has": ("have", "s"), "had": ("have", "ed"), "having": ("have", "ing"), "does": ("do", "s"), "did": ("do", "ed"),
    "gets": ("get", "s"), "got": ("get", "ed"), "gotten": ("get", "en"), "came": ("come", "ed"), "went": ("go", "ed"),
    "goes": ("go", "s"), "made": ("made", "base"), "shown": ("show", "en"), "seen": ("see", "en"),
    "slows": ("slows", "s"), "slowing": ("slows", "ing"), "slowed": ("slows", "ed"),
    "began": ("begin", "ed"), "begun": ("begin", "en"), "kept": ("keep", "en"), "met": ("meet", "en"),
    "drove": ("drive", "ed"), "driven": ("drive", "en"), "shot": ("shot", "base"), "rose": ("rise", "ed"),
    "set": ("set", "base"), "put": ("put", "base"), "sent": ("send", "en"), "left": ("left", "base"),
    "men": ("man", "s"), "women": ("woman", "s"), "children": ("child", "s"), "people": ("people", "s"),
    "mice": ("mouse", "s"), "geese": ("goose", "s"), "feet": ("foot", "s"), "dice": ("die", "s"),
    "knives": ("knife", "s"),
    "leaves": ("leaf", "s"),
    "ones": ("one", "s"), "wolves": ("wolf", "s"), "always": ("always", "base"), "towards": ("towards", "base"),
    "spheres": ("sphere", "s"), "boxes": ("box", "s"), "dollies": ("dolly", "s"), "dollying": ("dolly", "ing"),
    "its": ("its", "base"), "this": ("this", "base"), "glass": ("glass", "base"), "grass": ("grass", "base"),
    "bus": ("bus", "base"), "across": ("across", "base"), "wooden": ("wooden", "base"),
    "as": ("as", "base"), "us": ("us", "base"), "mars": ("mars", "base"), "stairs": ("stairs", "base"),
    "steps": ("steps", "base"),
    "moving": ("move", "ing"), "weightless": ("weightless", "base"), "lens": ("lens", "base"),
}  # fmt: skip

# Units of measure: what is measured, and the factor to SI.
UNITS: dict[str, tuple[str, float]] = {
    "m/s": ("speed_m_s", 1.0), "km/h": ("speed_m_s", 1 / 3.6), "mph": ("speed_m_s", 0.44704),
    "cm/s": ("speed_m_s", 0.01), "m": ("length_m", 1.0), "meter": ("length_m", 1.0), "metre": ("length_m", 1.0),
    "cm": ("length_m", 0.01), "mm": ("length_m", 0.001), "centimeter": ("length_m", 0.01), "s": ("time_s", 1.0),
    "sec": ("time_s", 1.0), "second": ("time_s", 1.0), "minute": ("time_s", 60.0), "kg": ("mass_kg", 1.0),
    "kilogram": ("mass_kg", 1.0), "kilo": ("mass_kg", 1.0), "g": ("mass_kg", 0.001), "gram": ("mass_kg", 0.001),
    "degree": ("angle_deg", 1.0), "deg": ("angle_deg", 1.0), "°": ("angle_deg", 1.0), "fps": ("rate_hz", 1.0),
    "k": ("", 1.0),
}  # fmt: skip
