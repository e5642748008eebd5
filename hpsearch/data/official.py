"""The official names: HPatches' 116 sequences and the test lists of its splits.

Source: hpatches/hpatches-benchmark, ``tasks/splits/splits.json``; the order of a list is the
official one, because the official task files were drawn in that order. ``illum`` and ``view``
train on the other kind; ``full`` tests on everything and has no training part.
"""

_A = """
    i_ajuntament i_autannes i_bologna i_books i_bridger i_brooklyn i_fog i_fruits i_kurhaus
    i_lionnight i_nijmegen i_porta i_resort i_salon i_santuario i_table i_tools i_troulos
    i_whitebuilding i_zion v_abstract v_azzola v_bees v_birdwoman v_busstop v_coffeehouse
    v_courses v_eastsouth v_feast v_fest v_man v_pomegranate v_soldiers v_strand v_tabletop
    v_talent v_underground v_woman v_yard v_yuri
""".split()  # noqa: SIM905
_B = """
    i_autannes i_bridger i_castle i_chestnuts i_dome i_duda i_fog i_fruits i_greenhouse
    i_kions i_kurhaus i_lionday i_melon i_partyfood i_pencils i_porta i_resort i_school
    i_ski i_village v_adam v_apprentices v_astronautis v_bees v_bip v_birdwoman v_charing
    v_churchill v_colors v_feast v_graffiti v_laptop v_london v_posters v_sunseason v_there
    v_underground v_war v_woman v_yard
""".split()  # noqa: SIM905
_C = """
    i_bologna i_boutique i_castle i_crownnight i_dc i_fog i_kions i_leuven i_londonbridge
    i_melon i_nijmegen i_parking i_partyfood i_pool i_ski i_smurf i_steps i_table i_tools
    i_troulos v_adam v_artisans v_azzola v_bees v_blueprint v_busstop v_coffeehouse
    v_dirtywall v_feast v_gardens v_graffiti v_machines v_man v_maskedman v_pomegranate
    v_talent v_tempera v_war v_weapons v_wounded
""".split()  # noqa: SIM905
_ONLY_TRAINING = """
    i_contruction i_crownday i_fenis i_gonnenberg i_greentea i_indiana i_ktirio i_miniature
    i_nescafe i_nuts i_objects i_pinard i_toy i_veggies i_yellowtent v_bark v_beyus v_bird
    v_boat v_bricks v_calder v_cartooncity v_circus v_dogman v_grace v_home v_samples
    v_vitro v_wall v_wapping v_wormhole
""".split()  # noqa: SIM905

HPATCHES = tuple(sorted({*_A, *_B, *_C, *_ONLY_TRAINING}))
"""57 illumination (``i_``) and 59 viewpoint (``v_``) sequences; "i_contruction" is spelt so."""

TESTS: dict[str, tuple[str, ...]] = {
    "a": tuple(_A),
    "b": tuple(_B),
    "c": tuple(_C),
    "illum": tuple(n for n in HPATCHES if n.startswith("i_")),
    "view": tuple(n for n in HPATCHES if n.startswith("v_")),
    "full": HPATCHES,
    "mini": ("i_astronaut", "i_ihc", "v_coffee", "v_gravel"),
}
"""Test sequences by split; ``mini`` is the embedded set's."""
