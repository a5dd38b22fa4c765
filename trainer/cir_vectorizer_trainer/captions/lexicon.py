"""Lexicon of the English words in picture and product captions, with the kind of each word.

A kind is finer than a tag, because the tag of many words depends on their neighbours ("a *dress*", "*dressed* in",
"*show* a", "the *show*"); `keywords.BuiltinTagger` chooses their tag. The kind of a word in no list comes from its
ending; any other word is a noun, which in captions is nearly always right, also for other languages.
"""

import re

_LISTS: dict[str, str] = {
    "det": "a an the no some any another either neither half",
    "this": "this these those",
    "that": "that",
    "possessive": "his her its their my your our whose",
    "subject": "it he she they we you i who which there they're it's he's she's there's that's thats who's what's "
    "i'm we're you're you've i've theyre im id theres there're i'd i'll it'll they'd they'll you'll you'd "
    "we'll he'd she'd that'll",
    "pron": "him them me us what whom something anything everything nothing someone anyone everyone nobody "
    "somebody anybody everybody itself himself herself themselves yourself myself mine yours theirs hers "
    "ours one's whatever whoever none",
    "adp": "of in on at by for with from into onto as than about above across after against along alongside amid "
    "among amongst around atop before behind below beneath beside besides between beyond despite down "
    "during except inside like near out over past per since through throughout till toward towards under "
    "underneath unlike until up upon versus vs via within without aboard outside w wth wiht witha amidst",
    "to": "to",
    "cconj": "and or but nor & n yet",
    "sconj": "while where when because if though although whereas whether unless why how",
    "be": "is are was were am be been being isn't isnt aren't wasn't weren't 're ain't",
    "have": "has have had having hasn't haven't hadn't hasnt havent",
    "modal": "do does did don't dont doesn't doesnt didn't can can't cannot could would should must may might will "
    "shall won't wouldn't shouldn't couldn't let's lets",
    "part": "not",
    "intj": "please yes oh wow ok okay",
    "more": "more less most least",
    "degree": "very too so much slightly quite rather really fairly somewhat extremely bit almost even far "
    "completely fully totally partially partly entirely highly brightly lightly heavily darkly mostly "
    "mainly",
    "adv": "instead only just also now then here away together apart ahead forward forwards backward backwards "
    "upward upwards downward downwards sideways further still ever never always often again once twice "
    "already yet almost else maybe perhaps however otherwise therefore thus hence alone aside nearby "
    "outdoors indoors overall upside upstairs downstairs upright halfway anywhere everywhere somewhere "
    "nowhere about well better later soon today tonight ago besides vice altogether sometimes thereby "
    "afterwards abroad overhead enough foward lengthwise next farther",
    "num": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
    "million billion",
    # adjectives that no ending reveals; some words' tag depends on whether an adjective follows
    "adj": "red white black blue green yellow orange pink purple brown grey gray navy beige tan teal gold golden "
    "silver cream ivory maroon burgundy turquoise khaki olive coral lavender peach mustard charcoal "
    "magenta violet indigo crimson scarlet aqua mint rose nude taupe bronze copper bright dark light pale "
    "deep vivid neutral pastel multi plain solid sheer simple fancy big small large little tiny huge long "
    "short tall low high wide narrow thin thick slim slender round square straight flat loose tight baggy "
    "cropped soft hard rough smooth warm cool cold hot wet dirty fresh raw new old young modern vintage "
    "retro classic casual formal smart elegant chic cute sweet sexy modest feminine masculine male female "
    "plaid tartan gingham floral paisley geometric abstract tropical asymmetric opaque clear transparent "
    "shiny matte glossy different same similar other own such many few several various single double "
    "triple multiple full bare naked whole main left right upper middle front rear inner outer closer "
    "better best worse good bad nice great fine pretty fun happy sad serious proud calm wild strong weak "
    "heavy busy quick slow fast late first second third last visible complete extra rich poor free public "
    "private human common rare real fake true wooden woolen woollen ugly lovely curly frilly silly girly "
    "friendly lonely woolly wooly scaly lively early daily holy hilly bubbly wrinkly crumbly burly lacy "
    "lacey leather denim metal plastic american indian italian chinese japanese african european mexican "
    "western eastern northern southern scary hairy less-formal mature dull bold sleek posh quiet loud "
    "opposite distant noble broad secret stark drab royal junior unisex generic plus separate secure "
    "super closest cleaner drier sharp crisp rugged lush sparse blurry",
    # participles that name a property of the thing shown, even if they follow "is" or stand alone
    "adjed": "colored coloured collared sleeved striped stripped patterned patterened printed checked checkered "
    "chequered dotted spotted speckled fitted belted shaped ruffled necked flared faded multicolored "
    "multicoloured toned buttoned pleated layered tiered pocketed strapped lined gathered draped ruched "
    "squared structured cinched flowered tufted dyed themed textured scooped laced shaded sequined "
    "sequinned embroidered knitted slanted relaxed hooded sided frilled embellished curved rounded "
    "tapered tailored cuffed distressed heathered beaded feathered fringed crocheted quilted padded "
    "ribbed scalloped jeweled jewelled studded trimmed winged waisted shouldered skirted haltered heeled "
    "hemmed crimped camouflaged haired furred eyed legged armed headed handled bearded horned tailed "
    "leafed potted wrinkled framed pointed angled muted subdued detailed sized sophisticated complicated "
    "varied crowded furnished wooded paved tiled seated uncooked cushioned pinstriped tweed knotted "
    "ragged rugged crooked wicked aged jagged naked sacred worsted gloved hinged mashed baked fried "
    "grilled roasted smoked sliced stuffed flavored scented concealed slimmed lighted stylized stylised "
    "styled bottomed topped fashioned tricolored blurred unbuttoned sleeveless crosshatched animated "
    "centered focused cartooned paneled panelled brushed polished lacquered faced branded ruffeled "
    "collored tattered washed ripped colorblocked gilded unopened unfinished tinted mixed assorted "
    "limited unlimited united combined dated cropped twisted braided woven slatted stainless",
    "adjing": "fitting revealing flattering flowing matching contrasting plunging slimming glowing shimmering "
    "striking amazing interesting charming stunning living vending dining dinning measuring overlapping "
    "concealing gleaming sparkling dazzling outgoing breathtaking surprising appealing sliding",
    # nouns with an ending of another kind
    "noun": "bed seed weed speed breed shed sled feed reed deed greed tweed steed moped biped seaweed hundred "
    "thing string ring king wing spring sling bling ceiling building clothing lettering wording coloring "
    "colouring lighting flooring shelving setting wedding evening morning piping lining railing awning "
    "siding edging stitching detailing trimming netting beading bedding packaging pudding frosting icing "
    "topping seasoning lightning earring stocking legging offspring drawstring batwing swing sibling "
    "duckling gosling darling housing banding tubing mooring outing fling herring ruching shirring "
    "smocking striping fencing paneling panelling branding scaffolding family belly jelly butterfly lily "
    "assembly supply bully doily july italy fly monopoly dolly trolley lots bit kind kinds back front "
    "side sides glasses clothes leaves jeans pants shorts sleeves stripes buttons table cable vegetable "
    "marble bubble cookie olives puppy baby body lady candy teddy bunny pony penny lobby trophy daddy "
    "mommy mummy buddy poppy company colony balcony copy ivy guppy tummy dummy academy economy samoyed "
    "monastery hanky pastry storey energy symphony ceremony harmony pansy daisy pharmacy privacy places "
    "parking party beauty county property liberty kitty warranty novelty plenty royalty difficulty "
    "specialty",
    "verb": "add allow appear arrange attach avoid bark become begin belong bend bite bring build buy carry "
    "change choose chase climb come compare consist contain continue convert create cuddle decrease "
    "depict describe dive eat eliminate enlarge exclude expand expose extend feature fill find follow "
    "gather gaze get give go graze grow hang happen hold hug include increase indicate involve join jump "
    "keep kneel know lay lean leap learn leave lend let lick lie lift lose make meet move need nuzzle "
    "offer open perch peek perform place play pour prefer prepare present put raise reach read receive "
    "reduce remain remove replace represent resemble reveal ride roam run say scratch see seem sell send "
    "shift show shrink sing sit sleep slide smell sniff soar spread squat stand stay straddle surround "
    "swap swim swallow take teach tell think throw transform try turn understand use vary wag wait walk "
    "want watch wrap write zoom gallop crawl flutter prowl depart arrive enjoy hope believe require "
    "provide ensure bury emerge exist lack adopt admire celebrate crouch recline sprint stroll descend "
    "look focus flow lighten darken lessen isolate brighten shorten widen tighten lengthen soften sharpen "
    "rotate blend attend speak deliver pay compete greet interact unveil discuss explain demonstrate "
    "tackle chat wade wander explore enter exit escape save win defend dribble toss slam connect "
    "communicate examine inspect operate repair install assemble decorate relax stir sprinkle squeeze fry "
    "spin knock glide steer drift sparkle loom divide dominate introduce select apply announce welcome "
    "flatter boast combine fasten elongate behave carve decide evoke pounce listen observe rescue "
    "preserve dismantle showcase retain maintain alter modify enhance reposition duplicate",
    "nounverb": "answer attack balance band bath blend block board bowl bow box break brush burn call care catch "
    "cause chew clap close coat color cook cover cradle crop cross crowd cup curl dance deck depend "
    "display drag drape draw dress drink drive drop face fade fall feed fight fish fit flare flash flip "
    "float fly fold force form frame gather guard head help hit hook howl hunt iron kick kiss knit knot "
    "lace land laugh lead leash light line list load lock love mark match measure mix model name nap note "
    "offset order overlook pack paddle page paint park pass pet picture pile plan plant point post press "
    "print pull punch push rest roll ruffle rush sail sample seat serve shade shape share shine ship "
    "shoot shop ski skate slice smile smoke snap snow splash split spot spray stack star start state "
    "steam step stick stop stream strike string stripe study support surf swing switch talk taste tie "
    "tilt top touch trade trail train travel trim trot twist view visit wave whip work yawn zip button "
    "blur crouch hide rise tear wash hatch accent adjust complement highlight resist protect perk tuck "
    "lower suit pose wear insert stretch lounge launch pitch sign score address host peel grill bounce "
    "hop hover tower wind style tumble bake cheer trick dip struggle charge",
    # past forms and participles that do not end in -ed
    "participle": "made worn shown taken seen held drawn given written sat stood lit built kept hung led sold sewn "
    "thrown broken chosen frozen hidden driven ridden eaten fallen grown known blown torn beaten bound "
    "caught dug fed found gone got gotten laid lain meant met paid ran rode said sent shook slept spoken "
    "spent spun stuck stolen swept swum told taught thought understood went won wore wrote done undone "
    "became began came gave saw took flew fell sang swam threw drove grew lost strewn shaven withdrawn "
    "forgotten",
    "compound": "swimming running frying waiting bathing floating rolling reclining relaxing shopping sewing hiking "
    "sleeping charging fishing jogging",
    "uninflected": "shot cut set cast shut",
    "verb_s": "rests fits covers falls kisses hits draws wears inserts stretches",
    "quantity": "all both each every",
    "off": "off",
    "deverbal": "painting drawing writing covering opening closing crossing stuffing backing marking racing heading "
    "ending beginning bowling boxing styling dressing meaning feeling",
    "transitive": "riding drinking cooking cutting chopping climbing training folding hanging",
    "adjverb": "open close clean dry empty lower",
}
_ADJECTIVE_ENDING = re.compile(
    r"(?:ful|ous|ive|ish|[ai]ble|ical|[binrtu]al|tic|phic|less|-like|esque|some|ary|[^aeiourt]y|[^i]ty)$"
)
_GERUND = re.compile(r"[aeiouy].*ing$")
_NUMBER = re.compile(r"\d[\d.,/x]*")
_ORDINAL = re.compile(r"\d*(?:1st|2nd|3rd|\dth)")


def _third_person(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "go")):
        return verb + "es"
    return verb[:-1] + "ies" if re.search(r"[^aeiou]y$", verb) else verb + "s"


def _degrees(adjective: str) -> list[str]:
    stem = re.sub(r"e$", "", re.sub(r"([^aeiou])y$", r"\1i", adjective))
    stems = {stem, stem + stem[-1]} if re.search(r"[^aeiou][aeiou][bdgmnt]$", stem) else {stem}
    return [s + ending for s in stems for ending in ("er", "est")]


def _build() -> dict[str, str]:
    kinds: dict[str, str] = {}
    for kind in ("verb", "nounverb"):
        kinds |= {_third_person(word): kind + "_s" for word in _LISTS[kind].split()}
    for word in _LISTS["adj"].split():
        kinds |= dict.fromkeys(_degrees(word), "adj")
    for kind in sorted(_LISTS, key=lambda kind: kind not in ("nounverb", "verb")):
        kinds |= dict.fromkeys(_LISTS[kind].split(), kind)
    return kinds


KINDS = _build()


def kind_of(word: str) -> str:
    """Return the kind of a lower-case word, by list or by ending; "mark" if it has neither letter nor digit."""
    if not any(map(str.isalnum, word)):
        return "mark"
    word = word.replace("’", "'")
    known = KINDS.get(word)
    if known:
        return known
    owner, apostrophe, _ = word.rpartition("'s")
    if apostrophe:
        return "possessive" if KINDS.get(owner) == "pron" else "noun"
    if _NUMBER.fullmatch(word):
        return "num"
    if "-" in word:
        return "adv" if word.endswith("ly") and not KINDS.get(word.rpartition("-")[2]) else "adj"
    if len(word) > 4 and word.endswith("ly"):
        return "adv"
    if _ORDINAL.fullmatch(word) or _ADJECTIVE_ENDING.search(word):
        return "adj"
    if len(word) > 4 and word.endswith("ed") and not word.endswith("eed"):
        return "participle"
    if _GERUND.search(word):
        return "ing"
    return "noun"
