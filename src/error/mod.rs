//! Every error a user can meet. `report` has what each one says: what happened, its SQLSTATE, what to do.
//!
//! Knows nothing of the product but names and texts, so that every room may raise one. Invariant: what a user sees
//! goes through here, as an [`Error`], [`notice`] or [`warning`].

mod messages;

use pgrx::PgLogLevel;
use pgrx::PgSqlErrorCode as Code;
use pgrx::pg_sys::panic::ErrorReport;

#[derive(Clone, Debug)]
pub enum Error {
    NotAttached,
    AttachedElsewhere(String),
    NoProfileTable(String),
    ProfileGone,
    DocumentGone,
    ColumnsGone,
    /// The layout that the SQL objects say they have.
    Layout(Option<i64>),
    DocumentWidened,
    DocumentBroken(String),
    NotAView(String),
    DocumentShape(String),
    ExcludeWithDocument,
    NoKeyInView(String),
    KeyDoesNotPass(String),
    Unsupported(&'static str),
    /// The table, and what of it is compared with what.
    Untied {
        table: String,
        compared: Option<(String, String)>,
    },
    /// A table all of whose rows IN asks, as a value.
    AskedWhole(String),
    /// One whose condition would have to pass a window.
    BehindWindow(String),
    ManyRows(String),
    /// The same where the view has row_number().
    ManyNumbered(String),
    /// What the view raised, and for which profile.
    ViewRaises {
        profile: Option<String>,
        code: Code,
        message: String,
        detail: Option<String>,
        hint: Option<String>,
    },
    ReadWhole(String),
    SystemColumn {
        column: String,
        table: String,
    },
    /// `columns`: those of the table that are not ours, as the view can name them.
    WholeProfile {
        table: String,
        alias: String,
        columns: String,
    },
    OwnColumn {
        column: String,
        alias: String,
        columns: String,
    },
    VolatileFunction(String),
    StableFunction(String),
    FunctionReads {
        function: String,
        table: String,
    },
    /// Behind the view: what calls it, what it calls, and what is wrong with that.
    CallsBehind {
        of: String,
        calls: String,
        which: &'static str,
    },
    AnotherLanguage {
        function: String,
        language: String,
        signature: String,
    },
    /// A problem of the view's code that keeps it from being read at all, and what to do.
    Unsafe {
        why: String,
        hint: Option<String>,
    },
    Unfollowed(&'static str),
    Encoding(String),
    SessionValue(String),
    NeedsValidUntil(String),
    PrintsNames(String),
    NotATable(String),
    NotYours(String),
    NotPermanent(String),
    Partitioned {
        table: String,
        /// The profile table itself.
        profile: bool,
    },
    Inherited(String),
    ForcedRowSecurity(String),
    /// Who is in the way.
    TablesBusy(Vec<String>),
    NoPrivilege(String),
    NotOwner(String),
    OtherOwner {
        /// What kind of object, as ALTER names it, and whether it is a table or a view.
        kind: String,
        name: String,
        owner: String,
        expected: String,
        relation: bool,
    },
    NotExtensionMember(String),
    NoKeyColumn {
        table: String,
        key: String,
    },
    KeyName(String),
    KeyNotUuid {
        table: String,
        key: String,
        is: String,
    },
    KeyNotUnique {
        table: String,
        key: String,
        found: Option<String>,
    },
    NoForeignKey {
        table: String,
        to: String,
    },
    ColumnTaken {
        table: String,
        column: String,
        is: String,
        wanted: &'static str,
    },
    ViewTaken(String),
    WrongType {
        table: String,
        column: String,
        is: String,
        wanted: &'static str,
    },
    UnknownExclude {
        table: String,
        column: String,
    },
    TwoDocuments,
    TooDeep,
    IndexChecked(String),
    ChecksQueued(String),
    EventsPending(String),
    NullArgument(&'static str),
    BatchSize(i32),
    Sample(i64),
    InTransaction,
    OneSnapshot,
    NotATrigger(&'static str),
    WrongTrigger(&'static str),
    Internal(String),
}

impl Error {
    /// Ends the current SQL function with this error.
    pub fn raise(self) -> ! {
        let (code, message, detail, hint) = self.report();
        let mut report = ErrorReport::new(code, message, "").set_hint(hint);
        if let Some(detail) = detail {
            report = report.set_detail(detail);
        }
        report.report(PgLogLevel::ERROR);
        std::panic::resume_unwind(Box::new("unreachable: an ERROR report does not return"))
    }

    /// Whether reading the view might run another role's code as the tables' owner.
    pub fn is_unsafe(&self) -> bool {
        matches!(self, Error::OtherOwner { .. } | Error::AnotherLanguage { .. } | Error::TooDeep)
    }

    /// The same error for those who read.
    pub fn for_readers(self) -> Error {
        let (why, hint) = self.message_and_hint();
        Error::Unsafe { why, hint: Some(hint) }
    }

    /// The message alone.
    pub fn message(self) -> String {
        let (_, message, _, _) = self.report();
        message
    }

    /// What happened and what to do, for `status`.
    pub fn message_and_hint(self) -> (String, String) {
        let (_, message, _, hint) = self.report();
        (message, hint)
    }
}

/// Raised in the place of a value that cannot be missing: PostgreSQL never has it NULL, or we wrote it.
pub fn missing<T>(what: &str) -> T {
    Error::Internal(format!("{what} is missing")).raise()
}

/// A NOTICE.
pub fn notice(message: &str) {
    ErrorReport::new(Code::ERRCODE_SUCCESSFUL_COMPLETION, message.to_owned(), "")
        .report(PgLogLevel::NOTICE);
}

/// A WARNING with a hint.
pub fn warning(message: &str, hint: &str) {
    ErrorReport::new(Code::ERRCODE_WARNING, message.to_owned(), "")
        .set_hint(hint.to_owned())
        .report(PgLogLevel::WARNING);
}

/// The server asks this backend to stop: cancels and terminations are raised here.
pub fn check_interrupts() {
    pgrx::check_for_interrupts!();
}
