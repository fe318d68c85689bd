//! Arrays in shared memory that arguments refer to.

use super::ArgsBlock;
use std::sync::Arc;

/// Arrays that stay as they are until a task is done. Mostly none or one, for which nothing is allocated.
#[derive(Default)]
pub(crate) struct Arrays {
    first: Option<Arc<ArgsBlock>>,
    others: Vec<Arc<ArgsBlock>>,
}

impl Arrays {
    pub(crate) const fn new() -> Self {
        Arrays { first: None, others: Vec::new() }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn push(&mut self, array: Arc<ArgsBlock>) {
        match &self.first {
            None => self.first = Some(array),
            Some(_) => self.others.push(array),
        }
    }

    /// Bytes of all of them.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        self.first.iter().chain(&self.others).map(|array| array.len()).sum()
    }
}

impl Extend<Arc<ArgsBlock>> for Arrays {
    fn extend<I: IntoIterator<Item = Arc<ArgsBlock>>>(&mut self, arrays: I) {
        arrays.into_iter().for_each(|array| self.push(array));
    }
}
