/* Trees in float64, without branches that depend on data: a mispredicted branch costs more than the few steps that a
   row takes in vain after its leaf (a leaf is its own child). Sums are added tree by tree, as scikit-learn does, so all
   bits agree. Called by kernel.py; a node's layout is stated there too. */
#include <math.h>
#include <stdint.h>

typedef struct {
    double threshold; /* of a leaf of one value, that value; of a categorical split, the number of its set */
    int32_t child[2]; /* left, right */
    int32_t feature;
    int32_t flags; /* split: 1 missing goes left, 2 categorical; leaf: 8 times its number */
} node_t;

typedef struct {
    int64_t trees, features, outputs, leaf_width, is_single, is_categorical;
    double scale, divisor; /* each value is multiplied, each sum divided */
    const node_t *nodes;
    const int64_t *roots, *offsets; /* a tree's first node, and the output that it adds to */
    const double *leaves; /* leaves of several values, leaf_width each */
    const double *base;
    const uint32_t *sets; /* categories that go left, 8 words a set */
    const uint32_t *known; /* categories known, 8 words a feature */
} trees_t;

enum { ROWS = 8, TREES = 8, HAS_NAN = 1, TOO_LARGE = 2 };

static inline int32_t step(const node_t *nodes, int32_t at, const double *row) {
    const node_t *n = nodes + at;
    double x = row[n->feature];
    int left = (x <= n->threshold) | ((x != x) & (n->flags & 1));
    return n->child[!left];
}

static inline int in_set(const uint32_t *words, unsigned value) { return (words[value >> 5] >> (value & 31)) & 1; }

static inline int32_t next(const trees_t *m, int32_t at, const double *row) {
    const node_t *n = m->nodes + at;
    double x = row[n->feature];
    int left, missing = n->flags & 1;
    if (!(n->flags & 2)) left = (x <= n->threshold) | ((x != x) & missing);
    else if (!(x >= 0) || x >= 256) left = missing;
    else if (in_set(m->sets + 8 * (int64_t)n->threshold, (unsigned)x)) left = 1;
    else left = in_set(m->known + 8 * n->feature, (unsigned)x) ? 0 : missing;
    return n->child[!left];
}

static int32_t walk(const trees_t *m, int32_t at, const double *row) {
    while (m->nodes[at].child[0] != at) at = next(m, at, row);
    return at;
}

static inline void add(const trees_t *m, int64_t tree, int32_t at, double *sums) {
    const node_t *n = m->nodes + at;
    double *out = sums + m->offsets[tree];
    if (m->leaf_width == 1) { out[0] += m->scale * n->threshold; return; }
    const double *leaf = m->leaves + (int64_t)(n->flags >> 3) * m->leaf_width;
    for (int64_t k = 0; k < m->leaf_width; k++) out[k] += leaf[k];
}

static void few(const trees_t *m, const double *row, double *sums) {
    for (int64_t t = 0; t < m->trees; t += TREES) {
        int32_t at[TREES], moved;
        int64_t many = m->trees - t < TREES ? m->trees - t : TREES;
        for (int64_t i = 0; i < TREES; i++) at[i] = (int32_t)m->roots[i < many ? t + i : t];
        do {
            moved = 0;
            for (int i = 0; i < TREES; i++) {
                int32_t next = step(m->nodes, at[i], row);
                moved |= next ^ at[i];
                at[i] = next;
            }
        } while (moved);
        for (int64_t i = 0; i < many; i++) add(m, t + i, at[i], sums);
    }
}

static void many(const trees_t *m, const double *rows, int64_t count, double *sums) {
    for (int64_t t = 0; t < m->trees; t++) {
        int32_t at[ROWS], moved;
        for (int64_t i = 0; i < count; i++) at[i] = (int32_t)m->roots[t];
        if (count == ROWS) {
            do {
                moved = 0;
                for (int i = 0; i < ROWS; i++) {
                    int32_t next = step(m->nodes, at[i], rows + i * m->features);
                    moved |= next ^ at[i];
                    at[i] = next;
                }
            } while (moved);
        } else {
            do {
                moved = 0;
                for (int64_t i = 0; i < count; i++) {
                    int32_t next = step(m->nodes, at[i], rows + i * m->features);
                    moved |= next ^ at[i];
                    at[i] = next;
                }
            } while (moved);
        }
        for (int64_t i = 0; i < count; i++) add(m, t, at[i], sums + i * m->outputs);
    }
}

/* Fill sums [count, outputs]; rows [count, features] are rounded in place where the model sees float32.
   Returns whether a value is missing, or too large for float32. */
int flyball_trees(const trees_t *m, double *rows, int64_t count, double *sums) {
    int found = 0;
    for (int64_t i = 0; i < count * m->features; i++) found |= rows[i] != rows[i] ? HAS_NAN : 0;
    if (m->is_single)
        for (int64_t i = 0; i < count * m->features; i++) {
            rows[i] = (float)rows[i];
            found |= fabs(rows[i]) > 3.4028234663852886e38 ? TOO_LARGE : 0;
        }
    for (int64_t i = 0; i < count; i++)
        for (int64_t k = 0; k < m->outputs; k++) sums[i * m->outputs + k] = m->base[k];
    for (int64_t i = 0; i < count;) {
        int64_t left = count - i, block = left < ROWS ? left : ROWS;
        const double *row = rows + i * m->features;
        double *sum = sums + i * m->outputs;
        if (m->is_categorical) {
            for (int64_t t = 0; t < m->trees; t++)
                for (int64_t r = 0; r < block; r++)
                    add(m, t, walk(m, (int32_t)m->roots[t], row + r * m->features), sum + r * m->outputs);
        } else if (block < 4) {
            block = 1;
            few(m, row, sum);
        } else {
            many(m, row, block, sum);
        }
        i += block;
    }
    if (m->divisor != 1.0)
        for (int64_t i = 0; i < count * m->outputs; i++) sums[i] /= m->divisor;
    return found;
}

/* 1 / (1 + exp(-x)) by the C library's exp, as SciPy's expit has it. */
void flyball_expit(const double *from, int64_t count, double *to) {
    for (int64_t i = 0; i < count; i++) to[i] = 1.0 / (1.0 + exp(-from[i]));
}

/* Interventional TreeSHAP (Lundberg et al. 2020, "From local explanations to global understanding with explainable AI
   for trees", Algorithm 3): the Shapley values of the game in which the players of a set take a row's values and the
   others those of a background row. Where both rows go one way nothing is decided. Where they part, the column's player
   must be in the set to go the row's way and out of it to go the other. A leaf that needs p players in and q out counts
   (p-1)!q!/(p+q)! of its value for each of the p, and minus p!(q-1)!/(p+q)! for each of the q. Several columns may be
   one player's. It recurs where a player is met for the first time only, so no deeper than there are players. */
typedef struct {
    const trees_t *m;
    const double *row, *other;
    const int32_t *player; /* of each column */
    const double *weights; /* (p-1)!q!/(p+q)! at [p * width + q] */
    int64_t width;
    int8_t *side; /* of each player: 0 not met, 1 in, 2 out */
    int32_t *met;
    double *shares; /* [players, outputs] */
} game_t;

static void share(game_t *g, int64_t tree, int32_t at, int64_t in, int64_t out) {
    const trees_t *m = g->m;
    const node_t *n = m->nodes + at;
    while (n->child[0] != at) {
        int32_t ours = next(m, at, g->row), theirs = next(m, at, g->other);
        int32_t player = g->player[n->feature];
        if (ours == theirs || g->side[player] == 1) at = ours;
        else if (g->side[player] == 2) at = theirs;
        else {
            g->met[in + out] = player;
            g->side[player] = 1;
            share(g, tree, ours, in + 1, out);
            g->side[player] = 2;
            share(g, tree, theirs, in, out + 1);
            g->side[player] = 0;
            return;
        }
        n = m->nodes + at;
    }
    double gain = in ? g->weights[in * g->width + out] : 0.0, loss = out ? g->weights[out * g->width + in] : 0.0;
    double single = m->scale * n->threshold;
    const double *leaf = m->leaf_width == 1 ? &single : m->leaves + (int64_t)(n->flags >> 3) * m->leaf_width;
    for (int64_t i = 0; i < in + out; i++) {
        int32_t player = g->met[i];
        double *to = g->shares + player * m->outputs + m->offsets[tree];
        double weight = g->side[player] == 1 ? gain : -loss;
        for (int64_t k = 0; k < m->leaf_width; k++) to[k] += weight * leaf[k];
    }
}

/* Add to shares [count, players, outputs] what each player did for each row [count, features], on average over the
   background rows [others, features]. All rows have been rounded where the model sees float32. `side` holds a zero for
   each player and `met` has room for all that meet on a path; weights are [width, width]. */
void flyball_shapley(const trees_t *m, const double *rows, int64_t count, const double *background, int64_t others,
                     const int32_t *player, int64_t players, const double *weights, int64_t width, int8_t *side,
                     int32_t *met, double *shares) {
    for (int64_t i = 0; i < count; i++) {
        double *own = shares + i * players * m->outputs;
        for (int64_t o = 0; o < others; o++) {
            game_t g = {m, rows + i * m->features, background + o * m->features, player, weights, width, side, met, own};
            for (int64_t t = 0; t < m->trees; t++) share(&g, t, (int32_t)m->roots[t], 0, 0);
        }
        for (int64_t k = 0; k < players * m->outputs; k++) own[k] /= m->divisor * (double)others;
    }
}
