//! What a camera's view looks like when all is well. Owns the learning of it from the stream, the comparison, and its form on disk:
//! directions of edges that stayed for a minute, and no grey value, so no person and no picture is kept. Refuses to judge and refuses time
//! but as stamps.

use serde::{Deserialize, Serialize};

use super::view::{BLOCKS, COLUMNS, Edge, ROWS, View, block_of};

/// Version of the form on disk.
const VERSION: u32 = 1;
/// Directions an edge is kept in; 0 stands for none.
const DIRECTIONS: u8 = 16;
/// Share of the pictures in which an edge must have agreed with itself to be the view's and not a passer-by's.
const STEADY_MIN: f32 = 0.35;
/// Fewer steady edges than this make no reference: a wall, fog, a cover.
const CELLS_MIN: usize = 180;
/// Steady edges that make a block worth asking.
const BLOCK_CELLS_MIN: usize = 6;
/// Looks of the same view that are kept: day, dusk, night, snow.
pub const ASPECTS_MAX: usize = 6;
/// Farthest shift that is recognised as one, in cells (an eighth of the picture).
const SHIFT_X: i32 = 16;
const SHIFT_Y: i32 = 10;

/// One look of the view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aspect {
    /// A hexadecimal pair per cell: direction of the steady edge, 1 to 16; 0 for none.
    #[serde(with = "hexadecimal")]
    cells: Vec<u8>,
    /// Fineness of each block, thousandths; 0 where it is too plain.
    fineness: Vec<u16>,
    /// Stream of matches, to know which look was not seen for longest.
    #[serde(default)]
    last_used: u64,
}

/// Bytes as a text of hexadecimal pairs: a third of what JSON makes of a list of numbers.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// All looks of the view.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    version: u32,
    aspects: Vec<Aspect>,
    #[serde(default)]
    uses: u64,
}

/// How a picture compares with the look it is nearest to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Agreement of the edges where they are expected: about 0 for another view, 1 for the same picture.
    pub agreement: f32,
    /// The best agreement anywhere within the search, and the shift (columns, rows of cells) at which it is.
    pub best: (f32, i32, i32),
    /// Share of the blocks in which what is expected cannot be seen, 0..1, and something else with edges of its own is there.
    pub replaced: f32,
    /// The same where nothing with edges is there.
    pub blank: f32,
    /// Share of the blocks that became much less fine, of those that can be asked; none if those are too few.
    pub smeared: Option<f32>,
}

impl Default for Reference {
    fn default() -> Self {
        Self { version: VERSION, aspects: Vec::new(), uses: 0 }
    }
}

impl Reference {
    /// Nothing was learned yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.aspects.is_empty()
    }

    /// What is wrong with one read from disk, if anything.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        if self.version != VERSION {
            return Some("it is of another version");
        }
        let whole = |a: &Aspect| {
            a.cells.len() == COLUMNS * ROWS
                && a.fineness.len() == BLOCKS
                && a.cells.iter().all(|&direction| direction <= DIRECTIONS)
        };
        (self.aspects.len() > ASPECTS_MAX || !self.aspects.iter().all(whole)).then_some("its contents are damaged")
    }

    /// Adds a look; the one not seen for longest goes when there are too many.
    pub fn add(&mut self, mut aspect: Aspect) {
        self.uses += 1;
        aspect.last_used = self.uses;
        if self.aspects.len() >= ASPECTS_MAX
            && let Some(oldest) = (0..self.aspects.len()).min_by_key(|&i| self.aspects[i].last_used)
        {
            self.aspects.remove(oldest);
        }
        self.aspects.push(aspect);
    }

    /// Compares a picture with the look it is nearest to; none if nothing was learned.
    pub fn compare(&mut self, view: &View) -> Option<Comparison> {
        let agreements = self.aspects.iter().map(|aspect| aspect.agreement(view.edges(), 0, 0));
        let (nearest, agreement) = agreements.enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
        self.uses += 1;
        self.aspects[nearest].last_used = self.uses;
        let aspect = &self.aspects[nearest];
        // The search is only worth its time when the view is in doubt.
        let sought = if agreement < SURE { self.search(view.edges()) } else { (agreement, 0, 0) };
        let best = if sought.0 > agreement { sought } else { (agreement, 0, 0) };
        let (replaced, blank) = aspect.lost(view.edges());
        Some(Comparison { agreement, best, replaced, blank, smeared: aspect.smeared(view) })
    }

    fn search(&self, edges: &[Edge]) -> (f32, i32, i32) {
        let mut best = (f32::NEG_INFINITY, 0, 0);
        for aspect in &self.aspects {
            let mut try_at = |x: i32, y: i32| {
                let agreement = aspect.agreement(edges, x, y);
                if agreement > best.0 {
                    best = (agreement, x, y);
                }
            };
            for y in (-SHIFT_Y..=SHIFT_Y).step_by(2) {
                for x in (-SHIFT_X..=SHIFT_X).step_by(2) {
                    try_at(x, y);
                }
            }
            let (_, near_x, near_y) = best;
            let mut try_near = |x: i32, y: i32| {
                let agreement = aspect.agreement(edges, x, y);
                if agreement > best.0 {
                    best = (agreement, x, y);
                }
            };
            for (x, y) in [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)] {
                try_near(near_x + x, near_y + y);
            }
        }
        best
    }
}

/// Agreement from which a view is certainly the right one.
pub const SURE: f32 = 0.55;

impl Aspect {
    /// Mean agreement of the picture's edges, shifted, with the expected ones that then lie inside.
    fn agreement(&self, edges: &[Edge], dx: i32, dy: i32) -> f32 {
        let (mut sum, mut count) = (0.0, 0_u32);
        for (direction, x, y) in self.steady() {
            if let Some(edge) = at(edges, x + dx, y + dy) {
                sum += agree(direction, edge);
                count += 1;
            }
        }
        // A view of which hardly anything is left inside tells nothing.
        if (count as usize) < CELLS_MIN / 2 { 0.0 } else { sum / count as f32 }
    }

    /// Shares of the blocks with expected edges in which these cannot be seen: with others in their place, and with none.
    fn lost(&self, edges: &[Edge]) -> (f32, f32) {
        let mut blocks = [Block::default(); BLOCKS];
        for (cell, (&direction, edge)) in self.cells.iter().zip(edges).enumerate() {
            let block = &mut blocks[block_of(cell)];
            block.cells += 1;
            block.plain_edges += usize::from(edge.c.hypot(edge.s) >= PLAIN_EDGE);
            if direction != 0 {
                block.agreement += agree(direction, *edge);
                block.expected += 1;
            }
        }
        let asked = blocks.iter().filter(|block| block.expected >= BLOCK_CELLS_MIN);
        let lost = asked.clone().filter(|block| block.agreement / (block.expected as f32) < 0.2);
        // A few stray edges are compression, or the rim of what covers the lens.
        let blank = lost.clone().filter(|block| block.plain_edges * 25 < block.cells).count();
        let share = |count: usize| count as f32 / asked.clone().count().max(1) as f32;
        (share(lost.count() - blank), share(blank))
    }

    fn smeared(&self, view: &View) -> Option<f32> {
        let pairs = self.fineness.iter().zip(view.fineness()).filter(|(was, _)| **was > 0);
        let asked: Vec<bool> =
            pairs.filter_map(|(was, is)| is.map(|is| is < f32::from(*was) / 1000.0 * FINE_SHARE)).collect();
        (asked.len() >= BLOCKS / 4)
            .then(|| asked.iter().filter(|smeared| **smeared).count() as f32 / asked.len() as f32)
    }

    fn steady(&self) -> impl Iterator<Item = (u8, i32, i32)> + '_ {
        self.cells.iter().enumerate().filter(|(_, direction)| **direction != 0).map(|(cell, direction)| {
            #[expect(clippy::cast_possible_wrap, clippy::cast_possible_truncation, reason = "a grid of 128 by 72")]
            let (x, y) = ((cell % COLUMNS) as i32, (cell / COLUMNS) as i32);
            (*direction, x, y)
        })
    }
}

/// Length from which an edge is plainly one.
const PLAIN_EDGE: f32 = 0.6;

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    cells: usize,
    plain_edges: usize,
    expected: usize,
    agreement: f32,
}

/// A block that keeps less than this share of its fineness is smeared.
const FINE_SHARE: f32 = 0.45;

fn at(edges: &[Edge], x: i32, y: i32) -> Option<Edge> {
    let (x, y) = (usize::try_from(x).ok()?, usize::try_from(y).ok()?);
    // The outermost cells have no edges of their own.
    let inside = (1..COLUMNS - 1).contains(&x) && (1..ROWS - 1).contains(&y);
    if inside { edges.get(y * COLUMNS + x).copied() } else { None }
}

/// Cosines and sines of the kept directions.
fn direction_vector(direction: u8) -> (f32, f32) {
    let angle = f32::from(direction - 1) * std::f32::consts::TAU / f32::from(DIRECTIONS);
    (angle.cos(), angle.sin())
}

fn agree(direction: u8, edge: Edge) -> f32 {
    static VECTORS: std::sync::LazyLock<Vec<(f32, f32)>> =
        std::sync::LazyLock::new(|| (1..=DIRECTIONS).map(direction_vector).collect());
    let (c, s) = VECTORS[usize::from(direction) - 1];
    c * edge.c + s * edge.s
}

/// Learns one look from pictures over time.
#[derive(Debug, Clone)]
pub struct Learner {
    sums: Vec<Edge>,
    fineness: Vec<(f32, u32)>,
    pictures: u32,
    first_ms: Option<i64>,
}

/// Pictures and time a look is learned from: passers-by must have gone.
const LEARN_PICTURES: u32 = 20;
const LEARN_MS: i64 = 60_000;

impl Default for Learner {
    fn default() -> Self {
        let sums = vec![Edge::default(); COLUMNS * ROWS];
        Self { sums, fineness: vec![(0.0, 0); BLOCKS], pictures: 0, first_ms: None }
    }
}

impl Learner {
    /// Takes a picture in.
    pub fn see(&mut self, now_ms: i64, view: &View) {
        self.first_ms.get_or_insert(now_ms);
        self.pictures += 1;
        for (sum, edge) in self.sums.iter_mut().zip(view.edges()) {
            sum.c += edge.c;
            sum.s += edge.s;
        }
        for ((sum, count), fineness) in self.fineness.iter_mut().zip(view.fineness()) {
            if let Some(fineness) = fineness {
                *sum += fineness;
                *count += 1;
            }
        }
    }

    /// Has it seen enough?
    #[must_use]
    pub fn is_ripe(&self, now_ms: i64) -> bool {
        self.pictures >= LEARN_PICTURES && self.first_ms.is_some_and(|first| now_ms - first >= LEARN_MS)
    }

    /// The look, or none if hardly anything in it was steady.
    #[must_use]
    pub fn aspect(&self) -> Option<Aspect> {
        let pictures = self.pictures.max(1) as f32;
        let cells: Vec<u8> = self.sums.iter().map(|sum| direction_of(sum, pictures)).collect();
        let steady = cells.iter().filter(|direction| **direction != 0).count();
        let fineness = self.fineness.iter().map(|(sum, count)| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the range of u16")]
            let thousandths = (sum / (*count).max(1) as f32 * 1000.0).clamp(0.0, 65_535.0) as u16;
            if *count * 2 > self.pictures { thousandths } else { 0 }
        });
        (steady >= CELLS_MIN).then(|| Aspect { cells, fineness: fineness.collect(), last_used: 0 })
    }
}

fn direction_of(sum: &Edge, pictures: f32) -> u8 {
    if sum.c.hypot(sum.s) / pictures < STEADY_MIN {
        return 0;
    }
    let turn = sum.s.atan2(sum.c).rem_euclid(std::f32::consts::TAU) / std::f32::consts::TAU;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a turn times 16")]
    let nearest = (turn * f32::from(DIRECTIONS)).round() as u8 % DIRECTIONS;
    nearest + 1
}
