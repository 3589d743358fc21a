#include "sync/shc_self.h"

int
shc_self_init(shc_self_t *self)
{
    self->epoch = 0;
    int r = shc_os_fork_word(&self->word);
    return r != 0 ? r : shc_self_refresh(self);
}

int
shc_self_refresh(shc_self_t *self)
{
    if (shc_self_epoch(self) != 0)
        return 0;
    int r = shc_os_identity(&self->id);
    if (r != 0)
        return r;
    self->epoch++;
    shc_a64_store_relaxed(self->word, self->epoch);
    return 0;
}
