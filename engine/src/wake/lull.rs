//! Short pauses that let what is looked for come together.

use crate::sync::spin_loop;

/// Most pauses in a row: half a microsecond or two.
const MOST: u32 = 32;

/// How long to wait before the next look, while one process works on what another goes on giving it.
///
/// Who is the faster of the two would otherwise look for each single thing, and with each look takes the lines from
/// the other that it is writing: both then wait for these lines more than they work.
#[derive(Default, Debug)]
pub(crate) struct Lull {
    pauses: u32,
}

impl Lull {
    /// To be called before a look.
    #[inline]
    pub(crate) fn rest(&self) {
        for _ in 0..self.pauses {
            spin_loop();
        }
    }

    /// After it: whether the next look had better come later.
    #[inline]
    pub(crate) fn learn(&mut self, later: bool) {
        self.pauses = if later { (2 * self.pauses).clamp(1, MOST) } else { self.pauses / 4 };
    }

    /// The same for a look that has found so many results of so many tasks outstanding. If that was a small part of
    /// them, nobody runs out of work before a later look.
    #[inline]
    pub(crate) fn learn_found(&mut self, found: usize, outstanding: u64) {
        const MANY: u64 = 64;
        self.learn(found > 0 && outstanding >= MANY && found as u64 <= outstanding / 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_as_long_as_it_pays_and_no_more_then() {
        let mut lull = Lull::default();
        let learnt = |lull: &mut Lull, later| {
            lull.learn(later);
            lull.pauses
        };
        assert_eq!([true; 7].map(|later| learnt(&mut lull, later)), [1, 2, 4, 8, 16, 32, 32]);
        assert_eq!([false; 4].map(|later| learnt(&mut lull, later)), [8, 2, 0, 0]);
    }

    #[test]
    fn only_for_few_results_of_many() {
        for (found, outstanding, pauses) in
            [(1, 64, 1), (16, 64, 1), (17, 64, 0), (1, 63, 0), (0, 1000, 0), (250, 1000, 1), (251, 1000, 0)]
        {
            let mut lull = Lull::default();
            lull.learn_found(found, outstanding);
            assert_eq!(lull.pauses, pauses, "{found} of {outstanding}");
        }
    }
}
