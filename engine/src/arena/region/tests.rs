use super::*;
use crate::arena::Adoption;
use crate::segment::Sizes;

fn segment(region: u64) -> Segment {
    Segment::create(Sizes { processes: 2, slots: 64, completions: 64, region }).expect("memory")
}

const ME: Owner = Owner { index: 0, incarnation: 0 };

#[test]
fn blocks_do_not_overlap_and_come_back() {
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 64 << 20);
    let mut held: Vec<(Block, u8)> = Vec::new();
    for round in 0..2000usize {
        let bytes = [1, 512, 700, 4096, 70_000, 1 << 20, 3 << 20][round % 7];
        if let Ok(block) = region.allocate(&segment, bytes) {
            assert!(block.len >= bytes);
            let mark = round as u8;
            // SAFETY: the block is ours and at least so long.
            unsafe { std::ptr::write_bytes(block.ptr.as_ptr(), mark, block.len) };
            held.push((block, mark));
        }
        if held.len() > 12 {
            let (block, mark) = held.remove(round * 7 % held.len());
            // SAFETY: written above.
            let bytes = unsafe { std::slice::from_raw_parts(block.ptr.as_ptr(), block.len) };
            assert!(bytes.iter().all(|&b| b == mark), "another block was written over this one");
            region.free(&segment, block.handle);
        }
    }
    for (block, _) in held {
        region.free(&segment, block.handle);
    }
    let whole = region.allocate(&segment, 40 << 20);
    assert!(whole.is_ok(), "all is free again: {whole:?}");
}

/// Whatever others write into its words, an owner that alone frees its blocks hands none out twice.
#[test]
fn own_books_do_not_believe_words() {
    let segment = segment(64 << 20);
    let mut region = Region::own(ME, 64 << 20);
    let mut held: Vec<Block> = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..600 {
        for _ in 0..4 {
            let extent = random.usize(..region.high_water.max(1));
            let word = extent * WORDS_PER_EXTENT + random.usize(..WORDS_PER_EXTENT);
            segment.words(0)[word].store(random.choice([0, 1, !0, 2]).expect("not empty"), Ordering::Relaxed);
            segment.classes(0)[extent].store(random.u32(..50), Ordering::Relaxed);
        }
        if random.u32(..20) == 0 {
            region.trim(&segment, random.usize(..4 << 20));
        }
        if let Ok(block) =
            region.allocate(&segment, random.choice([1, 700, 4096, 3 << 20]).expect("not empty"))
        {
            let end = block.offset + block.len as u64;
            assert!(held.iter().all(|b| b.offset >= end || b.offset + b.len as u64 <= block.offset));
            held.push(block);
        }
        if held.len() > 20 {
            let block = held.swap_remove(random.usize(..held.len()));
            region.free(&segment, block.handle);
        }
    }
    held.drain(..).for_each(|block| region.free(&segment, block.handle));
    region.trim(&segment, 0);
    assert_eq!(region.used(), 0, "all was given back");
}

/// Corrupt labels cost the memory behind them, not more.
#[test]
fn a_successor_keeps_away_from_what_it_cannot_know() {
    let right = Class::Run(3).pack();
    for (garbage, count) in [(77, 4), (1 << 31, 4), (!0, 4), (1 << 31 | 1000, 4), (right, 0), (right, !0)] {
        let segment = segment(64 << 20);
        let mut region = Region::open(&segment, ME, 64 << 20);
        let small = region.allocate(&segment, 600).expect("fits");
        let large = region.allocate(&segment, 5 << 20).expect("fits");
        segment.classes(0)[1].store(garbage, Ordering::Relaxed);
        segment.process(0).extents.store(count, Ordering::Relaxed);
        let mut heir = Region::open(&segment, Owner::new(0, 1), 64 << 20);
        for bytes in [600, 2 << 20, 5 << 20, 12 << 20] {
            let block = heir.allocate(&segment, bytes).expect("fits");
            let end = block.offset + block.len as u64;
            assert!(end <= large.offset || block.offset >= large.offset + large.len as u64, "{garbage:#x}");
            assert_ne!(block.offset, small.offset);
            heir.free(&segment, block.handle);
        }
    }
}

#[test]
fn free_extents_at_the_end_join_those_never_used() {
    let segment = segment(8 << 20);
    let mut region = Region::open(&segment, ME, 8 << 20);
    let small = region.allocate(&segment, 100_000).expect("fits");
    region.free(&segment, small.handle);
    let whole = region.allocate(&segment, 8 << 20).expect("nothing is in use");
    assert_eq!(whole.offset, 0);
    region.free(&segment, whole.handle);
    region.allocate(&segment, 1).expect("all is free again");
}

#[test]
fn the_quota_holds_and_says_so() {
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 4 << 20);
    let first = region.allocate(&segment, 2 << 20).expect("fits");
    let second = region.allocate(&segment, 2 << 20).expect("fits");
    let error = region.allocate(&segment, 1).expect_err("full");
    assert!(matches!(error.kind(), ErrorKind::ArenaFull { needed: 1, .. }), "{error}");
    region.free(&segment, first.handle);
    region.allocate(&segment, 1).expect("an extent is free again");
    region.free(&segment, second.handle);
    assert!(region.allocate(&segment, 5 << 20).is_err(), "larger than the quota");
}

#[test]
fn a_successor_finds_what_is_free_and_what_is_held() {
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 64 << 20);
    let blocks: Vec<Block> =
        [600, 600, 5 << 20, 100_000].iter().map(|&b| region.allocate(&segment, b).expect("fits")).collect();
    region.free(&segment, blocks[0].handle);
    let used = region.used();
    drop(region);

    let heir = Owner::new(0, 1);
    let mut region = Region::open(&segment, heir, 64 << 20);
    assert_eq!(region.used(), used);
    for _ in 0..4000 {
        let block = region.allocate(&segment, 600).expect("fits");
        assert!(
            blocks[1..].iter().all(|held| held.handle.block != block.handle.block),
            "a held block was handed out"
        );
    }
    let run = region.allocate(&segment, 5 << 20).expect("fits");
    assert_ne!(run.handle.block, blocks[2].handle.block);
    // The client gives its block back; the heir uses it again.
    assert!(
        BlockWord(&segment.words(0)[blocks[2].handle.block as usize])
            .release(ME, blocks[2].handle.generation)
    );
    let again = region.allocate(&segment, 5 << 20).expect("fits");
    assert_eq!(again.handle.block, blocks[2].handle.block);
    assert_ne!(again.handle.generation, blocks[2].handle.generation, "it changed hands");
}

#[test]
fn trimming_gives_memory_back_and_keeps_what_is_held() {
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 64 << 20);
    let held = region.allocate(&segment, 1000).expect("fits");
    // SAFETY: the block is ours and at least so long.
    unsafe { std::ptr::write_bytes(held.ptr.as_ptr(), 9, 1000) };
    let large = region.allocate(&segment, 30 << 20).expect("fits");
    region.free(&segment, large.handle);
    let resident = || rustix::fs::fstat(segment.fds()[1]).expect("stat").st_blocks * 512;
    assert!(resident() >= 30 << 20);
    region.trim(&segment, 4 << 20);
    assert!(resident() <= 7 << 20, "{} bytes are left", resident());
    // SAFETY: as above.
    let bytes = unsafe { std::slice::from_raw_parts(held.ptr.as_ptr(), 1000) };
    assert!(bytes.iter().all(|&b| b == 9));
    region.allocate(&segment, 30 << 20).expect("the memory can be had again");
}

#[test]
fn holes_between_blocks_do_not_cost_more_than_the_quota() {
    const QUOTA: u64 = 32 << 20;
    let segment = segment(128 << 20);
    let mut region = Region::open(&segment, ME, QUOTA);
    let resident = || rustix::fs::fstat(segment.fds()[1]).expect("stat").st_blocks as u64 * 512;
    let mut held: Vec<Block> = (0..16).map(|_| region.allocate(&segment, 2 << 20).expect("fits")).collect();
    assert_eq!(resident(), QUOTA);
    for at in (0..8).rev() {
        region.free(&segment, held.remove(2 * at).handle);
    }
    for _ in 0..4 {
        held.push(region.allocate(&segment, 4 << 20).expect("half of the quota is free"));
        assert!(resident() <= QUOTA, "{} bytes", resident());
    }
    for block in held.drain(..).skip(1) {
        region.free(&segment, block.handle);
    }
    // A successor knows what is free, but not what of it has memory.
    let mut heir = Region::open(&segment, Owner::new(0, 1), QUOTA);
    for _ in 0..15 {
        heir.allocate(&segment, 2 << 20).expect("all but one extent is free");
        assert!(resident() <= QUOTA, "{} bytes", resident());
    }
}

#[test]
fn what_a_successor_finds_in_use_counts_when_it_becomes_free() {
    const QUOTA: u64 = 32 << 20;
    let client = Owner::new(9, 0);
    let segment = segment(128 << 20);
    let mut region = Region::open(&segment, ME, QUOTA);
    let resident = || rustix::fs::fstat(segment.fds()[1]).expect("stat").st_blocks as u64 * 512;
    let blocks: Vec<Block> = (0..16).map(|_| region.allocate(&segment, 2 << 20).expect("fits")).collect();
    let word = |block: &Block| BlockWord(&segment.words(0)[block.handle.block as usize]);
    for block in &blocks {
        assert_eq!(word(block).adopt(ME, client, block.handle.generation), Adoption::Held);
    }
    let mut heir = Region::open(&segment, Owner::new(0, 1), QUOTA);
    for block in blocks.iter().step_by(2) {
        assert!(word(block).release(client, block.handle.generation));
    }
    for _ in 0..4 {
        heir.allocate(&segment, 4 << 20).expect("half of the quota is free");
        assert!(resident() <= QUOTA, "{} bytes", resident());
    }
}

#[test]
fn classes_give_way_when_address_space_runs_out() {
    let segment = segment(8 << 20);
    let mut region = Region::open(&segment, ME, 8 << 20);
    for bytes in [512, 4096, 65_536, 1 << 20, 600, 5000] {
        let block = region.allocate(&segment, bytes).expect("an empty class gives its extent up");
        region.free(&segment, block.handle);
    }
    region.allocate(&segment, 8 << 20).expect("and all of them for one block");
}

/// Who takes results one after the other has them all in the same memory; who keeps some, in as many blocks as needed.
#[test]
fn results_that_were_given_back_are_next() {
    let client = Owner::new(9, 0);
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 64 << 20);
    let mut blocks = Vec::new();
    let mut held = VecDeque::new();
    for keep in [0, 1, 5] {
        blocks.clear();
        for _ in 0..1000 {
            let block = region.allocate(&segment, 1000).expect("fits").handle;
            assert!(!held.contains(&block), "handed out twice");
            blocks.push(block.block);
            let word = BlockWord(&segment.words(0)[block.block as usize]);
            assert_eq!(word.adopt(ME, client, block.generation), Adoption::Held);
            held.push_back(block);
            while held.len() > keep {
                let block = held.pop_front().expect("not empty");
                assert!(BlockWord(&segment.words(0)[block.block as usize]).release(client, block.generation));
            }
        }
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), keep + 1);
    }
}

/// Blocks that their owner itself gives back do not pile up in the books.
#[test]
fn what_is_taken_and_given_back_is_noted_once() {
    let segment = segment(64 << 20);
    let mut region = Region::open(&segment, ME, 64 << 20);
    let books = |region: &Region| {
        region.classes.iter().map(|class| class.free.len() + class.recent.len()).sum::<usize>()
    };
    let mut most = 0;
    for round in 0..10_000 {
        let block = region.allocate(&segment, 1000).expect("fits");
        region.free(&segment, block.handle);
        if round == 0 {
            most = books(&region);
        }
    }
    assert!(books(&region) <= most, "{} instead of {most}", books(&region));
}
