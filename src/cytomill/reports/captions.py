"""The words under the figures: what each shows and how to read it, in plain language."""

HISTOGRAMS = (
    "Grey: how many voxels have each intensity. Blue and orange: what the fitted mixture says is "
    "background and nanoparticles; their sum (dashed) should lie on the top of the grey area. Orange "
    "should be a hump or a shoulder of its own: where it only follows the foot of the blue curve, "
    "intensity alone does not tell particles from background."
)

NO_PARTICLES = (
    "Grey: how many voxels have each intensity. Blue: the background as fitted. There is "
    "no second curve, for nothing is taken for particles."
)

LOW_THRESHOLD = (
    " Dotted: pixels above the low threshold may be particles; background is sampled away from them."
)

HIGH_THRESHOLD = " Only pixels below the high threshold count as background."

POSTERIOR = (
    "How sure the method is that a voxel of a given intensity belongs to a particle. A steep step is a "
    "clear decision; a long slope means that many voxels are neither surely particle nor surely "
    "background. These are the curves as they were applied to the slices with least, median and most "
    "particles: the step moves with the slice's particle share π and its brightness."
)

MIXING_WEIGHT = (
    "Share π of each slice's pixels that the fit gives to particles. The prior, the expectation that "
    "particles are few, pulls slices with little evidence towards zero; where the two lines differ much, "
    "the slice's own histogram says little."
)

DRIFT = " Below: how much {up} (+) or {down} (−) each slice is than the stack's model."

SIZES = (
    "Sizes of the labelled clusters; bins are equally wide on the log axis. One label is one connected "
    "region: particles that touch count as one cluster. A pile at the left edge is usually the smallest "
    "size that is kept."
)

ALONG_Z = (
    "Where the clusters' centres lie along the stack. Steps at single slices point at imaging "
    "(charging, a lost or repeated slice) rather than at biology."
)

CALIBRATION = (
    "Of the voxels given a posterior p, which share really is particle. On the dashed line the posterior "
    "can be read as a probability. Largest deviation here: {worst}; parts with few voxels (grey) are not "
    "counted."
)

BALANCE = (
    "Each bar is a rank (a process that shares the work), as high as the stage was long. Coloured: time "
    "spent computing; pale: waiting, or putting results together on rank 0. Even coloured bars mean that "
    "work was shared well. Busy over all stages: {share}."
)

THRESHOLDS = (
    "Each line is a slice. Where a line is flat the threshold hardly matters; where it is steep the regions "
    "found are mostly doubtful."
)

ENRICHMENT = (
    "The radial distribution function (RDF) g says how densely a shell is filled compared with the organelle "
    "spread evenly over the cytoplasm: g = 1 is even, 2 is twice as dense, 0.5 half. It is an enrichment "
    "over uniform density, not a pair correlation: it says where in the cell an organelle sits, nothing "
    "about how its objects sit to one another. A shell without cytoplasm has no g (–)."
)

RDF = (
    "In the RDF, orange: density of the organelle in each shell over its density in the whole cytoplasm; "
    "the band is the 95 % interval over the cell's objects. Blue: the same for objects counted by their "
    "centres, against the same objects put at random where they fit. Grey: the voxel curve in finer steps "
    "of t. Where orange and blue part, a few large objects carry the voxel curve."
)

RDF_CELLS = (
    "Thin: one cell each. Thick: their mean, every cell counting the same. Lines that run together are a "
    "pattern of the cells; lines that do not are not one, however smooth their mean."
)

SHELL_SIZES = (
    "Shells take equal steps of t, not equal volumes, so outer shells are usually larger; pale parts are "
    "censored: nearer to a face of the image volume than to the plasma membrane, so that their true shell "
    "is not known."
)

DISTANCES = (
    "Distance of every object's centre to the nearest point of the surface. Colours: where the object lies."
)

CONDITIONS = (
    "Mean over the cells of a condition. Bars are 95 % intervals: the mean of cells drawn anew within each "
    "replicate, many times; a single cell has none. Where bars overlap widely, the cells at hand do not "
    "tell the conditions apart."
)

ALL_CELLS = (
    "Mean over all cells. Bars are 95 % intervals: the mean of cells drawn anew within each replicate, many "
    "times; a single cell has none."
)

SIMILARITY = (
    "Pearson's r between two RDFs, shell by shell: 1 is the same shape, 0 none in common, −1 the mirror "
    "image. No p-value: the few shells of a cell are not independent draws."
)


def slices_set_aside(number: int) -> str:
    """What the shaded slices of a figure along z are."""
    return f" Shaded: {number} slice{'s' if number != 1 else ''} set aside (blank, constant or saturated)."
