//! Estimates what a function costs to compile, in one pass over its code.
//!
//! The compiler takes more than linear time for nested loops, for values that blocks and branches carry, and
//! for locals and operands that live across many blocks. Each of these is counted by its product, so that
//! short code cannot ask for long work.
//!
//! Must not know: limits, or what the code does.

use wasmparser::{
    BlockType, BrTable, CompositeInnerType, ContType, FrameKind, FuncType, FunctionBody, ModuleArity,
    Operator, RefType, Result, SubType,
};

/// The size of one function, and its cost in parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompileCost {
    /// Locals, including parameters.
    pub locals: u64,
    /// The deepest nesting of blocks.
    pub depth: u64,
    /// The deepest nesting of loops.
    pub loop_depth: u64,
    /// Targets of the largest `br_table`.
    pub targets: u64,
    pub operators: u64,
    /// For each loop, the loops before it.
    pub loops: u64,
    /// For each indirect call and each operator that calls the runtime, the number of those before it.
    pub runtime: u64,
    /// Operands and results of operators beyond the usual three.
    pub passed: u64,
    /// Values that blocks take and return and that branches carry.
    pub carried: u64,
    /// For each of these values, the control flow edges before it.
    pub far: u64,
    /// For each use of a local, the edges since its previous use.
    pub reach: u64,
    /// For each block, the locals set between the first and the last branch to its end, times the number of
    /// those branches. Branches of a `br_table`, which take several times as long, are counted in
    /// `merged_from_tables`.
    pub merged: u64,
    pub merged_from_tables: u64,
    /// For each block, the operands that live across its beginning.
    pub live: u64,
}

impl CompileCost {
    /// The total cost. A unit is about a microsecond of compiling or, where memory runs out first, about 50
    /// bytes.
    #[must_use]
    pub const fn units(&self) -> u64 {
        const FUNCTION: u64 = 80;
        FUNCTION
            .saturating_add(self.operators.saturating_mul(5))
            .saturating_add(self.loops / 4)
            .saturating_add(self.runtime / 16)
            .saturating_add(self.passed.saturating_mul(10))
            .saturating_add(self.carried.saturating_mul(5))
            .saturating_add(self.far / 50)
            .saturating_add(self.reach / 4)
            .saturating_add(self.merged.saturating_mul(2))
            .saturating_add(self.merged_from_tables.saturating_mul(12))
            .saturating_add(self.live / 20)
    }
}

/// The types of a core module and of its functions.
#[derive(Debug, Default)]
pub struct ModuleTypes {
    pub types: Vec<SubType>,
    /// The type index of each function, imported ones first.
    pub functions: Vec<u32>,
}

impl ModuleTypes {
    fn arity(&self, index: u32) -> (u64, u64) {
        let Some(ty) = self.types.get(index as usize) else { return (0, 0) };
        match &ty.composite_type.inner {
            CompositeInnerType::Func(of) => (of.params().len() as u64, of.results().len() as u64),
            _ => (0, 0),
        }
    }
}

/// An open block.
#[derive(Debug, Clone, Copy)]
struct Frame {
    ty: BlockType,
    kind: FrameKind,
    params: u64,
    results: u64,
    /// Operands below it.
    height: u64,
    /// Branches to it so far, and those of them that come from a `br_table`.
    branches: u64,
    from_tables: u64,
    /// Sets of locals before the first and before the last branch to it.
    first: u64,
    last: u64,
    /// Edges and uses of locals before it.
    edges: u64,
    uses: u64,
}

/// The state of one pass.
struct CostEstimator<'a> {
    types: &'a ModuleTypes,
    cost: CompileCost,
    frames: Vec<Frame>,
    height: u64,
    /// Open loops, all loops so far, and calls as in `CompileCost::runtime`.
    open_loops: u64,
    loops: u64,
    runtime: u64,
    edges: u64,
    uses: u64,
    sets: u64,
    /// Whether the next operator is reachable.
    alive: bool,
    /// For each local, the edges before its last use.
    used: Vec<u64>,
}

/// Estimates the cost of a function; `function` is its index in the module. Stops early, with the result so
/// far, at more than `locals_max` locals or `units_max` units.
///
/// # Errors
/// It is not valid code.
pub fn estimate(
    body: &FunctionBody<'_>,
    types: &ModuleTypes,
    function: usize,
    locals_max: u64,
    units_max: u64,
) -> Result<CompileCost> {
    let ty = types.functions.get(function).copied().unwrap_or(u32::MAX);
    let (params, _) = types.arity(ty);
    let mut locals = params;
    for declared in body.get_locals_reader()? {
        locals = locals.saturating_add(u64::from(declared?.0));
    }
    let mut estimator = CostEstimator::new(types, CompileCost { locals, ..CompileCost::default() });
    if locals > locals_max {
        return Ok(estimator.cost);
    }
    estimator.used = vec![0; usize::try_from(locals).unwrap_or(usize::MAX)];
    estimator.open(BlockType::FuncType(ty), FrameKind::Block, 0);
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() && estimator.cost.units() <= units_max {
        estimator.step(&operators.read()?)?;
    }
    Ok(estimator.cost)
}

impl<'a> CostEstimator<'a> {
    const fn new(types: &'a ModuleTypes, cost: CompileCost) -> Self {
        Self {
            types,
            cost,
            frames: Vec::new(),
            height: 0,
            open_loops: 0,
            loops: 0,
            runtime: 0,
            edges: 0,
            uses: 0,
            sets: 0,
            alive: true,
            used: Vec::new(),
        }
    }

    fn step(&mut self, operator: &Operator<'_>) -> Result<()> {
        self.cost.operators += 1;
        match operator {
            Operator::Block { blockty } => self.enter(*blockty, FrameKind::Block),
            Operator::Loop { blockty } => self.enter(*blockty, FrameKind::Loop),
            Operator::If { blockty } => {
                self.pop(1);
                self.enter(*blockty, FrameKind::If);
            }
            Operator::Else => self.enter_else(),
            Operator::End => self.leave(),
            Operator::Br { relative_depth } => {
                self.branch(*relative_depth, false);
                self.alive = false;
            }
            Operator::Return | Operator::Unreachable => self.alive = false,
            Operator::BrIf { relative_depth } => {
                self.pop(1);
                self.branch(*relative_depth, false);
                self.edge();
            }
            Operator::BrTable { targets } => self.branch_table(targets)?,
            Operator::LocalGet { local_index } => {
                self.use_local(*local_index);
                self.height += 1;
            }
            Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
                self.use_local(*local_index);
                self.sets += 1;
                self.apply_arity(operator);
            }
            other => {
                if calls_runtime(other) {
                    self.runtime += 1;
                    self.cost.runtime = self.cost.runtime.saturating_add(self.runtime);
                }
                self.apply_arity(other);
            }
        }
        Ok(())
    }

    /// Applies the operands and results of an operator without control flow.
    fn apply_arity(&mut self, operator: &Operator<'_>) {
        let (taken, given) = operator.operator_arity(self).unwrap_or_default();
        self.cost.passed += u64::from(taken.saturating_add(given).saturating_sub(3));
        self.pop(u64::from(taken));
        self.height += u64::from(given);
    }

    const fn pop(&mut self, taken: u64) {
        self.height = self.height.saturating_sub(taken);
    }

    /// The next operator can be reached along another edge.
    const fn edge(&mut self) {
        self.edges += 1;
        self.cost.live = self.cost.live.saturating_add(self.height);
    }

    /// Values are passed along an edge.
    const fn carry(&mut self, values: u64) {
        self.cost.carried = self.cost.carried.saturating_add(values);
        self.cost.far = self.cost.far.saturating_add(values.saturating_mul(self.edges));
    }

    fn enter(&mut self, ty: BlockType, kind: FrameKind) {
        let (params, _) = self.block_arity(ty);
        let below = self.height.saturating_sub(params);
        self.open(ty, kind, below);
        self.edge();
    }

    fn open(&mut self, ty: BlockType, kind: FrameKind, height: u64) {
        let (params, results) = self.block_arity(ty);
        self.carry(params + results);
        // A loop is also entered from before it, and the end of an `if` is also reached from its beginning.
        let branches = u64::from(matches!(kind, FrameKind::Loop | FrameKind::If));
        let (first, last, edges, uses) = (self.sets, self.sets, self.edges, self.uses);
        self.frames.push(Frame {
            ty,
            kind,
            params,
            results,
            height,
            branches,
            from_tables: 0,
            first,
            last,
            edges,
            uses,
        });
        self.cost.depth = self.cost.depth.max(self.frames.len() as u64);
        if matches!(kind, FrameKind::Loop) {
            self.loops += 1;
            self.open_loops += 1;
            self.cost.loops = self.cost.loops.saturating_add(self.loops);
            self.cost.loop_depth = self.cost.loop_depth.max(self.open_loops);
        }
    }

    fn enter_else(&mut self) {
        if let Some(frame) = self.frames.last() {
            self.height = frame.height + frame.params;
            let results = frame.results;
            self.carry(results);
        }
        self.alive = true;
        self.edge();
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else { return };
        self.height = frame.height + frame.results;
        self.carry(frame.results);
        if matches!(frame.kind, FrameKind::Loop) {
            self.open_loops = self.open_loops.saturating_sub(1);
            // Uses in a loop are also reached from its end: the compiler searches all edges within for them.
            let uses = (self.uses - frame.uses).min(self.cost.locals);
            self.cost.reach = self.cost.reach.saturating_add(uses.saturating_mul(self.edges - frame.edges));
        }
        self.merge_branches(&frame);
        // Uses after the block are searched for along every branch that leads here.
        self.edges += frame.branches;
        self.edge();
    }

    fn branch(&mut self, depth: u32, from_table: bool) {
        let sets = self.sets;
        let Some(frame) = self.label_mut(depth) else { return };
        if frame.branches == 0 {
            frame.first = sets;
        }
        frame.last = sets;
        frame.branches += 1;
        frame.from_tables += u64::from(from_table);
        let values = if matches!(frame.kind, FrameKind::Loop) { frame.params } else { frame.results };
        self.carry(values);
        self.cost.operators += 1;
    }

    /// Where branches to a block meet, each local that was set between them gets a value from every branch.
    fn merge_branches(&mut self, frame: &Frame) {
        let falls_through = self.alive && !matches!(frame.kind, FrameKind::Loop);
        let last = if falls_through { self.sets } else { frame.last };
        let set = last.saturating_sub(frame.first).min(self.cost.locals);
        let ways = frame.branches + u64::from(falls_through);
        if ways > 1 {
            self.cost.merged = self.cost.merged.saturating_add(set.saturating_mul(ways - frame.from_tables));
            self.cost.merged_from_tables =
                self.cost.merged_from_tables.saturating_add(set.saturating_mul(frame.from_tables));
        }
        self.alive |= !matches!(frame.kind, FrameKind::Loop) && frame.branches > 0;
    }

    fn branch_table(&mut self, table: &BrTable<'_>) -> Result<()> {
        self.pop(1);
        self.cost.targets = self.cost.targets.max(u64::from(table.len()));
        for target in table.targets() {
            self.branch(target?, true);
        }
        self.branch(table.default(), true);
        self.alive = false;
        Ok(())
    }

    fn use_local(&mut self, index: u32) {
        self.uses += 1;
        if let Some(used) = self.used.get_mut(index as usize) {
            self.cost.reach = self.cost.reach.saturating_add(self.edges - *used);
            *used = self.edges;
        }
    }

    fn frame_index(&self, depth: u32) -> Option<usize> {
        self.frames.len().checked_sub(1)?.checked_sub(depth as usize)
    }

    fn label(&self, depth: u32) -> Option<&Frame> {
        self.frames.get(self.frame_index(depth)?)
    }

    fn label_mut(&mut self, depth: u32) -> Option<&mut Frame> {
        let at = self.frame_index(depth)?;
        self.frames.get_mut(at)
    }

    fn block_arity(&self, ty: BlockType) -> (u64, u64) {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(index) => self.types.arity(index),
        }
    }
}

/// Whether the compiled code of an operator calls through a table or into the runtime. Many of these in one
/// function take more than linear time.
const fn calls_runtime(operator: &Operator<'_>) -> bool {
    matches!(
        operator,
        Operator::CallIndirect { .. }
            | Operator::ReturnCallIndirect { .. }
            | Operator::MemoryGrow { .. }
            | Operator::MemoryCopy { .. }
            | Operator::MemoryFill { .. }
            | Operator::MemoryInit { .. }
            | Operator::TableGet { .. }
            | Operator::TableSet { .. }
            | Operator::TableGrow { .. }
            | Operator::TableFill { .. }
            | Operator::TableCopy { .. }
            | Operator::TableInit { .. }
    )
}

impl ModuleArity for CostEstimator<'_> {
    fn sub_type_at(&self, index: u32) -> Option<&SubType> {
        self.types.types.get(index as usize)
    }

    fn tag_type_arity(&self, _at: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, index: u32) -> Option<u32> {
        self.types.functions.get(index as usize).copied()
    }

    fn func_type_of_cont_type(&self, _of: &ContType) -> Option<&FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _of: &RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        u32::try_from(self.frames.len()).unwrap_or(u32::MAX)
    }

    fn label_block(&self, depth: u32) -> Option<(BlockType, FrameKind)> {
        self.label(depth).map(|frame| (frame.ty, frame.kind))
    }
}
