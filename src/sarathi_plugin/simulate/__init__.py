"""The real vLLM scheduler on virtual time: no model, no GPU; what is simulated is the code that serves.

Real: VllmConfig, KVCacheConfig, KV-cache manager, the scheduler class with its policy. Emulated: the engine's loop
(``EngineCore.step`` and ``step_with_batch_queue``), the model runner (a token for each request that is due one), and
time, which a step-time profile moves. Not simulated: tokenisation and HTTP (a constant delay stands for them), and
engines that split prefill and decode between machines (disaggregation).
"""
