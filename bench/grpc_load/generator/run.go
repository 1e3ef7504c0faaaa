package generator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// What is said when the time that is measured begins and ends.
const (
	Measuring = "measuring"
	Measured  = "measured"
)

const (
	connectMax = 30 * time.Second
	// answerMax is for the last replies, once no more requests leave.
	answerMax = 60 * time.Second
	// tick: with a rate, what is due leaves so often, all at once.
	tick = 2 * time.Millisecond
)

// Run makes the load. An error: something did not come back as it must.
func Run(load *Load, dial Dial, say func(string)) (*Outcome, error) {
	if err := load.Check(); err != nil {
		return nil, err
	}
	run := &run{load: load, dial: dial, say: say}
	for number := range load.Connections {
		run.connections = append(run.connections, newConnection(load, number, &run.meter))
	}
	return run.all()
}

type run struct {
	load        *Load
	dial        Dial
	say         func(string)
	meter       meter
	connections []*connection
	seconds     float64
	cpuS        float64
}

func (run *run) all() (*Outcome, error) {
	if err := run.create(); err != nil {
		return nil, err
	}
	if err := errors.Join(run.connectAndMeasure(), run.close()); err != nil {
		return nil, err
	}
	for _, each := range run.connections {
		if err := each.checkPlaces(); err != nil {
			return nil, err
		}
	}
	verified, err := run.verify()
	if err != nil {
		return nil, err
	}
	return run.outcome(verified)
}

// at does something at each of these servers, over a connection for it alone.
func (run *run) at(endpoints []string, do func(context.Context, Client) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), answerMax)
	defer cancel()
	for _, endpoint := range endpoints {
		client, err := run.dial(ctx, endpoint)
		if err != nil {
			return err
		}
		if err := errors.Join(do(ctx, client), client.Close()); err != nil {
			return fmt.Errorf("%s: %w", endpoint, err)
		}
	}
	return nil
}

// create makes the keys, so that reads at any server find them.
func (run *run) create() error {
	err := run.at(run.load.Endpoints[:1], func(ctx context.Context, client Client) error {
		for _, each := range run.connections {
			if err := client.Create(ctx, each.key, each.first); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return run.at(run.load.AllEndpoints, func(ctx context.Context, client Client) error {
		_, err := client.Get(ctx, run.connections[len(run.connections)-1].key, true)
		return err
	})
}

func (run *run) connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), connectMax)
	defer cancel()
	for number, each := range run.connections {
		client, err := run.dial(ctx, run.load.Endpoints[number%len(run.load.Endpoints)])
		if err != nil {
			return err
		}
		each.client = client
	}
	return nil
}

func (run *run) close() error {
	var all error
	for _, each := range run.connections {
		if each.client != nil {
			all = errors.Join(all, each.client.Close())
		}
	}
	return all
}

// connectAndMeasure ends with the first error of any caller.
func (run *run) connectAndMeasure() error {
	if err := run.connect(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // Another one was the first.
		}
	}
	var callers sync.WaitGroup
	for _, connection := range run.connections {
		for _, each := range connection.callers {
			callers.Go(func() {
				if err := each.run(ctx); err != nil {
					fail(err)
				}
			})
		}
	}
	paced, stopPace := run.pace(fail)
	err := run.window(failed)
	run.meter.isStopping.Store(true)
	close(stopPace)
	<-paced
	if err != nil {
		cancel()
		// What the callers say from now on is that.
		callers.Wait()
		return err
	}
	return wait(&callers, failed)
}

// window lets the time pass, without what comes before it and after it.
func (run *run) window(failed <-chan error) error {
	if err := pass(run.load.RampS, failed); err != nil {
		return err
	}
	run.say(Measuring)
	cpuS, began := cpuSeconds(), time.Now()
	run.meter.isMeasuring.Store(true)
	err := pass(run.load.Seconds, failed)
	run.meter.isMeasuring.Store(false)
	run.seconds, run.cpuS = time.Since(began).Seconds(), cpuSeconds()-cpuS
	if err == nil {
		run.say(Measured)
	}
	return err
}

func pass(seconds float64, failed <-chan error) error {
	select {
	case err := <-failed:
		return err
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return nil
	}
}

func wait(callers *sync.WaitGroup, failed <-chan error) error {
	done := make(chan struct{})
	go func() {
		callers.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(answerMax):
		return fmt.Errorf("the last replies did not come within %v", answerMax)
	}
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// pace says what is due, if there is a rate. What is due at a tick is counted from then, whenever
// the pacer comes round to it. It ends, and closes paced, when stop is closed.
func (run *run) pace(fail func(error)) (paced chan struct{}, stop chan struct{}) {
	paced, stop = make(chan struct{}), make(chan struct{})
	if run.load.Rate <= 0 {
		close(paced)
		return paced, stop
	}
	go func() {
		defer close(paced)
		defer func() {
			for _, each := range run.connections {
				close(each.due)
			}
		}()
		began, begun := time.Now(), 0
		for ticks := 1; ; ticks++ {
			at := began.Add(time.Duration(ticks) * tick)
			select {
			case <-stop:
				return
			case <-time.After(time.Until(at)):
			}
			for ; begun < int(at.Sub(began).Seconds()*run.load.Rate); begun++ {
				if err := run.connections[begun%len(run.connections)].sendDue(at); err != nil {
					fail(err)
					return
				}
			}
		}
	}()
	return paced, stop
}

// outcome adds up what the callers counted, which have ended, and what was compared afterwards.
func (run *run) outcome(verified int64) (*Outcome, error) {
	outcome := &Outcome{
		Seconds:       run.seconds,
		Verified:      verified,
		GeneratorCPUS: run.cpuS,
		Late:          run.meter.late.Load(),
	}
	var samples []float64
	for _, connection := range run.connections {
		for _, each := range connection.callers {
			samples = append(samples, each.samples...)
			outcome.Total += each.acked
			outcome.Verified += each.verified
		}
	}
	if len(samples) == 0 {
		return nil, errors.New("nothing was answered while it was measured")
	}
	outcome.Operations = int64(len(samples))
	outcome.LatenciesS = percentiles(samples)
	return outcome, nil
}

// verify reads every key at every server, and returns how many it compared.
func (run *run) verify() (int64, error) {
	var compared int64
	err := run.at(run.load.AllEndpoints, func(ctx context.Context, client Client) error {
		for _, each := range run.connections {
			value, err := client.Get(ctx, each.key, true)
			if err != nil {
				return err
			}
			if err := each.check(value); err != nil {
				return err
			}
			compared++
		}
		return nil
	})
	return compared, err
}

// cpuSeconds is what this process has used so far, in user and system mode.
func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err) // It has no way to fail with these arguments.
	}
	seconds := func(of syscall.Timeval) float64 { return float64(of.Sec) + float64(of.Usec)/1e6 }
	return seconds(usage.Utime) + seconds(usage.Stime)
}
