//! Datums with their type: copying, comparing images, text in and out.
//!
//! Invariant: a [`Value`] points into memory that lives at least as long as the SQL function or
//! trigger call that made it (its memory context outlives every Rust frame of ours); what is touched, to
//! the transaction's end.

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::{FromDatum, IntoDatum};
use std::ffi::CStr;

/// A uuid as PostgreSQL stores it.
pub type Uuid = [u8; 16];

/// A non-null datum and its type.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    pub datum: Datum,
    pub oid: Oid,
}

/// How the values of one type are stored (`pg_type.typlen` and its companions).
#[derive(Clone, Copy, Debug)]
pub struct TypeLayout {
    pub len: i16,
    pub by_value: bool,
    pub align: i8,
}

// utils/datum.h, which pgrx 0.18 does not bind.
unsafe extern "C-unwind" {
    fn datum_image_eq(a: Datum, b: Datum, by_value: bool, len: i32) -> bool;
    fn datumIsEqual(a: Datum, b: Datum, by_value: bool, len: i32) -> bool;
    fn datumCopy(value: Datum, by_value: bool, len: i32) -> Datum;
}

impl TypeLayout {
    pub fn of(oid: Oid) -> TypeLayout {
        let mut s = TypeLayout { len: 0, by_value: false, align: 0 };
        // SAFETY: out parameters of the declared types; an unknown type is a PostgreSQL error.
        unsafe { pg_sys::get_typlenbyvalalign(oid, &mut s.len, &mut s.by_value, &mut s.align) };
        s
    }

    /// Equal to the last bit of the (detoasted) value. The type's own equality would take
    /// numeric 1.0 for 1.00 and citext 'A' for 'a', which print differently.
    pub fn same_image(&self, a: Option<Datum>, b: Option<Datum>) -> bool {
        match (a, b) {
            (None, None) => true,
            (Some(a), Some(b)) if self.by_value => a.value() == b.value(),
            // SAFETY: both are values of the type that `self` describes.
            (Some(a), Some(b)) => unsafe {
                // What need not be detoasted is compared here, without crossing into C for each.
                match (self.plain_bytes(a), self.plain_bytes(b)) {
                    (Some(a), Some(b)) => a == b,
                    _ => pg_guard_ffi_boundary(|| {
                        datum_image_eq(a, b, self.by_value, i32::from(self.len))
                    }),
                }
            },
            _ => false,
        }
    }

    /// The bytes of a varlena that is neither compressed nor stored apart.
    ///
    /// # Safety
    /// `d` is a value of the type that `self` describes, and outlives what is returned.
    unsafe fn plain_bytes<'a>(&self, d: Datum) -> Option<&'a [u8]> {
        use pgrx::varlena::{
            varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, vardata_any, varsize_any_exhdr,
        };
        if self.len != -1 {
            return None;
        }
        // SAFETY: as the caller says.
        unsafe {
            let v = d.cast_mut_ptr::<pg_sys::varlena>();
            let plain = varatt_is_4b_u(v) || varatt_is_1b(v) && !varatt_is_1b_e(v);
            plain.then(|| std::slice::from_raw_parts(vardata_any(v).cast(), varsize_any_exhdr(v)))
        }
    }

    /// Whether they are the same bytes as they stand in their rows: of a value that is stored apart, the pointer to it.
    /// Nothing is fetched.
    pub fn same_bytes(&self, a: Datum, b: Datum) -> bool {
        // SAFETY: both are values of the type that `self` describes.
        unsafe { pg_guard_ffi_boundary(|| datumIsEqual(a, b, self.by_value, i32::from(self.len))) }
    }

    /// A copy in the current memory context.
    pub fn copy(&self, d: Datum) -> Datum {
        // SAFETY: `d` is a value of the type that `self` describes.
        unsafe { pg_guard_ffi_boundary(|| datumCopy(d, self.by_value, i32::from(self.len))) }
    }
}

impl Value {
    pub fn uuid(u: &Uuid) -> Value {
        // A uuid is sixteen bytes by reference (uuid.h).
        // SAFETY: freshly allocated in the current context, then filled whole.
        let datum = unsafe {
            let p = pg_sys::palloc(16).cast::<u8>();
            std::ptr::copy_nonoverlapping(u.as_ptr(), p, 16);
            Datum::from(p)
        };
        Value { datum, oid: pg_sys::UUIDOID }
    }

    /// The type's own text form, under the settings in force. What is short is made here, as the type's output function makes it.
    pub fn to_text(self) -> String {
        match self.oid {
            pg_sys::INT8OID => return (self.datum.value() as i64).to_string(),
            pg_sys::INT4OID => return (self.datum.value() as i32).to_string(),
            pg_sys::INT2OID => return (self.datum.value() as i16).to_string(),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => {
                let mut bytes = vec![];
                self.image(&TypeLayout { len: -1, by_value: false, align: 0 }, &mut bytes);
                return String::from_utf8_lossy(&bytes).into_owned();
            }
            _ => {}
        }
        let (mut out, mut varlena) = (Oid::INVALID, false);
        // SAFETY: `oid` is the type of `datum`; the output function returns a palloc'd C string.
        unsafe {
            pg_sys::getTypeOutputInfo(self.oid, &mut out, &mut varlena);
            let s = pg_sys::OidOutputFunctionCall(out, self.datum);
            CStr::from_ptr(s).to_string_lossy().into_owned()
        }
    }

    /// The texts of a one-dimensional array's elements, NULL as None.
    pub fn elements(self, element: Oid) -> Option<Vec<Option<String>>> {
        let (dimensions, items) = self.items(element);
        let text = |datum| Value { datum, oid: element }.to_text();
        (dimensions <= 1).then(|| items.into_iter().map(|item| item.map(text)).collect())
    }

    /// How many dimensions an array has, and its elements in the order in which they are stored, NULL as None.
    pub(super) fn items(self, element: Oid) -> (i32, Vec<Option<Datum>>) {
        let s = TypeLayout::of(element);
        // SAFETY: called for arrays of `element`; deconstruct_array fills in arrays of `n`.
        unsafe {
            let array =
                pg_sys::pg_detoast_datum(self.datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (mut items, mut nulls, mut n) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                element,
                i32::from(s.len),
                s.by_value,
                s.align,
                &mut items,
                &mut nulls,
                &mut n,
            );
            let item = |i| (!*nulls.add(i)).then(|| *items.add(i));
            ((*array).ndim, (0..n as usize).map(item).collect())
        }
    }

    /// Appends the stored bytes, detoasted: equal for values of one image.
    pub fn image(self, s: &TypeLayout, to: &mut Vec<u8>) {
        if s.by_value {
            return to.extend_from_slice(&self.datum.value().to_ne_bytes());
        }
        // SAFETY: `s` describes the value: a C string, a varlena, or `len` bytes by reference.
        to.extend_from_slice(unsafe {
            match s.len {
                -2 => CStr::from_ptr(self.datum.cast_mut_ptr()).to_bytes(),
                -1 => {
                    let v = pg_sys::pg_detoast_datum_packed(self.datum.cast_mut_ptr());
                    let bytes = pgrx::varlena::vardata_any(v).cast::<u8>();
                    std::slice::from_raw_parts(bytes, pgrx::varlena::varsize_any_exhdr(v))
                }
                len => {
                    let bytes = self.datum.cast_mut_ptr::<u8>();
                    std::slice::from_raw_parts(bytes, len.unsigned_abs().into())
                }
            }
        });
    }

    /// Equal to the last bit of the detoasted value, for values of one type.
    pub fn same_image(self, other: Value) -> bool {
        TypeLayout::of(self.oid).same_image(Some(self.datum), Some(other.datum))
    }

    /// Bytes of a varlena in memory.
    pub fn size(self) -> usize {
        // SAFETY: called for jsonb only, a varlena.
        unsafe { pgrx::varlena::varsize_any(self.datum.cast_mut_ptr()) }
    }

    /// Bytes of a varlena or of any by-reference value's text, for `explain`.
    pub fn stored_bytes(self) -> i64 {
        // SAFETY: called for jsonb only, a varlena.
        unsafe { pg_sys::toast_datum_size(self.datum) as i64 }
    }
}

/// Runs `f` in a memory context of its own, gone afterwards: no [`Value`] made in it may leave it.
pub fn scratch<R: 'static>(f: impl FnOnce() -> R) -> R {
    // SAFETY: switched back and deleted here; on an error the parent context takes it along.
    unsafe {
        let mine = pg_sys::AllocSetContextCreateInternal(
            pg_sys::CurrentMemoryContext,
            c"profile_cache".as_ptr(),
            0,
            8 * 1024,
            8 * 1024 * 1024,
        );
        let before = pg_sys::MemoryContextSwitchTo(mine);
        let r = f();
        pg_sys::MemoryContextSwitchTo(before);
        pg_sys::MemoryContextDelete(mine);
        r
    }
}

/// Runs `f` in the memory context that lives to the transaction's end, or goes with the subtransaction that is
/// rolled back.
pub fn until_transaction_end<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: switched back here; an error resets the current context itself.
    unsafe {
        let before = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
        let r = f();
        pg_sys::MemoryContextSwitchTo(before);
        r
    }
}

/// An array of `element` type as a value. The elements are copied.
pub fn array(element: Oid, items: &[Datum]) -> Value {
    let s = TypeLayout::of(element);
    let mut items = items.to_vec();
    // SAFETY: every item is a non-null value of type `element`, as `s` describes it.
    let datum = unsafe {
        Datum::from(pg_sys::construct_array(
            items.as_mut_ptr(),
            items.len() as i32,
            element,
            i32::from(s.len),
            s.by_value,
            s.align,
        ))
    };
    // SAFETY: a catalog look-up.
    let oid = unsafe { pg_sys::get_array_type(element) };
    Value { datum, oid }
}

pub(super) fn from<T: FromDatum>(d: Option<Datum>) -> Option<T> {
    // SAFETY: the caller names the column's or argument's declared type as T.
    d.and_then(|d| unsafe { T::from_datum(d, false) })
}

pub(super) fn into<T: IntoDatum>(v: T, oid: Oid) -> Option<Value> {
    v.into_datum().map(|datum| Value { datum, oid })
}

pub(super) fn uuid(d: Datum) -> Uuid {
    let mut u = [0; 16];
    // SAFETY: the caller has a non-null uuid, sixteen bytes by reference.
    unsafe { std::ptr::copy_nonoverlapping(d.cast_mut_ptr::<u8>(), u.as_mut_ptr(), 16) };
    u
}
