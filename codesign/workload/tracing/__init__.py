"""Behind the doors `workload.trace` and `workload.trace_gradient`.

`walk` goes through a jaxpr (`loops`, `steps`, `views`, `product` know its equations, and
`equations` their form in each version of JAX) and leaves `node`s; `grouping` joins
point-wise ones into layers (`recognise` says which); `assemble` makes ops of them, under
the names of `place`.
"""
